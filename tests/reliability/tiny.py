"""The smallest Mask R-CNN that detects: one stage, two levels, random weights that behave.

Its file is nearly all structure, opens in a fraction of the time of any real one, and goes through
the same graph, runtime and results.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from export.onnx import export_onnx
from model.mask_rcnn import MaskRCNN
from model.spec import (
    AnchorSpec,
    BoxHeadSpec,
    ClassSpec,
    FpnSpec,
    MaskHeadSpec,
    ModelSpec,
    PoolerSpec,
    PreprocessSpec,
    ResNetSpec,
    RpnSpec,
)
from tests.lively import enliven_network, picture

STRIDE, WIDTH = 4, 4
DETECTIONS = 8
SPEC = ModelSpec(
    dialect="torchvision",
    architecture="maskrcnn_one_stage",
    body=ResNetSpec((1,), "basic", WIDTH, (WIDTH,), (WIDTH,), dilations=(1,), outputs=(0,)),
    fpn=FpnSpec(WIDTH),
    classes=ClassSpec(("__background__", "round", "square")),
    anchors=AnchorSpec(sizes=((24.0,), (48.0,)), ratios=((0.5, 1.0, 2.0),) * 2),
    rpn=RpnSpec(pre_nms=30, post_nms=20),
    box=BoxHeadSpec(
        pooler=PoolerSpec(output_size=3, strides=(STRIDE,)),
        fc_widths=(8, 8),
        detections=DETECTIONS,
        candidates=40,
        score_threshold=0.3,
    ),
    mask=MaskHeadSpec(
        pooler=PoolerSpec(output_size=5, strides=(STRIDE,)),
        conv_widths=(WIDTH,),
        deconv_width=WIDTH,
    ),
    preprocess=PreprocessSpec(short_side=64, long_side=96),
)


def photo(height: int = 48, width: int = 64, seed: int = 1) -> npt.NDArray[np.uint8]:
    """A uint8 [height, width, 3] picture in which the model sees something."""
    return picture(height, width, seed)


def weights(folder: Path, spec: ModelSpec = SPEC) -> Path:
    """Write `tiny.safetensors` with the spec in its header, as `maskport convert` does."""
    from safetensors.torch import save_file

    from model.files.stored_spec import header_of

    model = MaskRCNN(spec).eval().requires_grad_(False)
    pictures = [photo(96, 96, seed) for seed in range(3)]
    images = torch.stack([torch.tensor(p).permute(2, 0, 1).float() / 255 for p in pictures])
    enliven_network(model, images)
    path = folder / "tiny.safetensors"
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, path, header_of(spec))
    return path


def exported(weights_path: Path) -> Path:
    """Write `tiny.onnx` beside its weights, of any canvas and batch."""
    path = weights_path.with_suffix(".onnx")
    export_onnx(weights_path, path, check_photo=None)
    return path
