"""`ModelSpec`: everything that decides the network's output, as frozen dataclasses without torch.

A checkpoint dialect creates it, the network is built from it, and every exported file contains it
as JSON, so that an artifact needs no second file.

Coordinates are continuous pixels, x to the right and y down; `xyxy` means x0, y0, x1, y1.
The canvas is the resized and padded image that the network receives.

body: the body, the feature pyramid, the RoI stage of C4
checks: checks of the values
heads: box, mask and keypoint heads, class names
input: resize, channels, normalization, canvas
pooler: RoI pooling and the level rule
proposals: anchors and the region proposal network
tree: the whole model
"""

from model.spec.body import FpnSpec, MobileNetV3Spec, ModuleBodySpec, ResNetSpec, RoIStageSpec
from model.spec.heads import BoxHeadSpec, ClassSpec, KeypointHeadSpec, MaskHeadSpec, PasteRule
from model.spec.input import PreprocessSpec
from model.spec.pooler import PoolerSpec
from model.spec.proposals import AnchorSpec, RpnSpec
from model.spec.tree import ModelSpec

__all__ = [
    "AnchorSpec",
    "BoxHeadSpec",
    "ClassSpec",
    "FpnSpec",
    "KeypointHeadSpec",
    "MaskHeadSpec",
    "MobileNetV3Spec",
    "ModelSpec",
    "ModuleBodySpec",
    "PasteRule",
    "PoolerSpec",
    "PreprocessSpec",
    "ResNetSpec",
    "RoIStageSpec",
    "RpnSpec",
]
