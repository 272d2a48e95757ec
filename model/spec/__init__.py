"""`ModelSpec`: everything that decides the network's output, in one frozen tree without torch.

A checkpoint dialect fills it in, the network is built from it, and it travels as JSON inside
every exported file, so that an artifact needs no second file to be run correctly.

Coordinates are continuous pixels, x to the right and y down; `xyxy` means x0, y0, x1, y1.
"Canvas" is the resized and padded image that the network sees.
"""

from model.spec.body import FpnSpec, MobileNetV3Spec, ResNetSpec, RoIStageSpec
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
    "PasteRule",
    "PoolerSpec",
    "PreprocessSpec",
    "ResNetSpec",
    "RoIStageSpec",
    "RpnSpec",
]
