"""detectron2's configuration: its defaults, its zoo's base files, and the user's YAML.

Keys are dotted, `MODEL.RPN.NMS_THRESH`. Source: detectron2 0.6 `config/defaults.py` and
`configs/Base-*.yaml`; see docs/models.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from model.errors import CheckpointError
from model.families.detectron2 import lazy_config
from model.files.yaml_config import read_yaml

DEFAULTS: Mapping[str, Any] = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.LOAD_PROPOSALS": False,
    "MODEL.MASK_ON": False,
    "MODEL.KEYPOINT_ON": False,
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "INPUT.FORMAT": "BGR",
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, False, False, False],
    "MODEL.FPN.IN_FEATURES": [],
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.FPN.NORM": "",
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 0,
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.RPN.HEAD_NAME": "StandardRPNHead",
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.RPN.BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0],
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": False,
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "MODEL.ROI_KEYPOINT_HEAD.NAME": "KRCNNConvDeconvUpsampleHead",
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE": "ROIAlignV2",
    "TEST.DETECTIONS_PER_IMAGE": 100,
    "TEST.AUG.ENABLED": False,
}
_FPN: Mapping[str, Any] = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
}
_DC5: Mapping[str, Any] = {
    "MODEL.RESNETS.RES5_DILATION": 2,
    "MODEL.RPN.IN_FEATURES": ["res5"],
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["res5"],
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
}
# The zoo's base files, for weights without a configuration and for `_BASE_`.
BASES: Mapping[str, Mapping[str, Any]] = {
    "Base-RCNN-FPN.yaml": _FPN,
    "Base-RCNN-C4.yaml": {},
    "Base-RCNN-DilatedC5.yaml": _DC5,
    "Base-Keypoint-RCNN-FPN.yaml": {
        **_FPN,
        "MODEL.KEYPOINT_ON": True,
        "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    },
}
# Keys that are determined by the weights, only for training, or of parts that no R-CNN has.
_IRRELEVANT = frozenset((
    "CUDNN_BENCHMARK", "FLOAT32_PRECISION", "OUTPUT_DIR", "SEED", "VERSION", "VIS_PERIOD",
    "INPUT.MASK_FORMAT", "INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_TRAIN",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING", "INPUT.RANDOM_FLIP", "MODEL.ANCHOR_GENERATOR.ANGLES",
    "MODEL.BACKBONE.FREEZE_AT", "MODEL.DEVICE", "MODEL.FPN.OUT_CHANNELS",
    "MODEL.RESNETS.DEFORM_MODULATED", "MODEL.RESNETS.DEFORM_NUM_GROUPS", "MODEL.RESNETS.DEPTH",
    "MODEL.RESNETS.NUM_GROUPS", "MODEL.RESNETS.OUT_FEATURES", "MODEL.RESNETS.RES2_OUT_CHANNELS",
    "MODEL.RESNETS.STEM_OUT_CHANNELS", "MODEL.RESNETS.WIDTH_PER_GROUP",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT",
    "MODEL.ROI_BOX_HEAD.CONV_DIM", "MODEL.ROI_BOX_HEAD.FC_DIM", "MODEL.ROI_BOX_HEAD.NAME",
    "MODEL.ROI_BOX_HEAD.NUM_CONV", "MODEL.ROI_BOX_HEAD.NUM_FC",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES",
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
    "MODEL.ROI_HEADS.IOU_LABELS", "MODEL.ROI_HEADS.IOU_THRESHOLDS",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION", "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT",
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT",
    "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE", "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS",
    "MODEL.ROI_KEYPOINT_HEAD.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS", "MODEL.ROI_MASK_HEAD.CONV_DIM",
    "MODEL.ROI_MASK_HEAD.NUM_CONV", "MODEL.RPN.BATCH_SIZE_PER_IMAGE",
    "MODEL.RPN.BBOX_REG_LOSS_TYPE", "MODEL.RPN.BBOX_REG_LOSS_WEIGHT", "MODEL.RPN.BOUNDARY_THRESH",
    "MODEL.RPN.CONV_DIMS", "MODEL.RPN.IOU_LABELS", "MODEL.RPN.IOU_THRESHOLDS",
    "MODEL.RPN.LOSS_WEIGHT", "MODEL.RPN.POSITIVE_FRACTION", "MODEL.RPN.POST_NMS_TOPK_TRAIN",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN", "MODEL.RPN.SMOOTH_L1_BETA", "MODEL.WEIGHTS", "TEST.AUG.FLIP",
    "TEST.AUG.MAX_SIZE", "TEST.AUG.MIN_SIZES", "TEST.EVAL_PERIOD", "TEST.EXPECTED_RESULTS",
    "TEST.KEYPOINT_OKS_SIGMAS",
))  # fmt: skip
_IRRELEVANT_FAMILIES = (
    "DATALOADER.", "DATASETS.", "GLOBAL.", "SOLVER.", "INPUT.CROP.", "MODEL.PANOPTIC_FPN.",
    "MODEL.RETINANET.", "MODEL.ROI_BOX_CASCADE_HEAD.", "MODEL.ROI_BOX_HEAD.FED_LOSS_",
    "MODEL.SEM_SEG_HEAD.", "TEST.PRECISE_BN.",
)  # fmt: skip
_MOST_BASES = 4
_LONGEST_LITERAL = 1000
_LARGEST = 2**53  # integers up to here are exact as floats


@dataclass(frozen=True, slots=True)
class Settings:
    """The values that decide the results and are not in the weights.

    Attributes:
        values: of every key of `DEFAULTS`.
        source: their origin, for messages.
        configured: keys with a value from a configuration or from its framework's defaults.
        unknown: keys of the configuration that are not supported.
        explicit: the content of the configuration and its bases.
    """

    values: Mapping[str, Any]
    source: str
    configured: frozenset[str]
    unknown: tuple[str, ...] = ()
    explicit: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def numbers(self, key: str, count: int | None = None) -> tuple[float, ...]:
        """A list of numbers.

        Raises:
            CheckpointError: it is not a list of numbers, or not of that length.
        """
        value = self.values[key]
        if not _are_numbers(value) or count not in (None, len(value)):
            number = "" if count is None else f"{count} "
            raise self._invalid(key, f"a list of {number}numbers")
        return tuple(float(v) for v in value)

    def rows(self, key: str, count: int) -> tuple[tuple[float, ...], ...]:
        """`count` lists of numbers; a single list, or plain numbers, applies to all.

        Raises:
            CheckpointError: it is not, or has another number of lists.
        """
        value = self.values[key]
        rows = [value] if _are_numbers(value) else value
        if not isinstance(rows, list | tuple) or not all(_are_numbers(row) for row in rows):
            raise self._invalid(key, "lists of numbers")
        if len(rows) not in (1, count):
            raise CheckpointError(
                f"{self.source}: {key}: expected 1 or {count} lists, got {len(rows)}"
            )
        numbers = tuple(tuple(float(v) for v in row) for row in rows)
        return numbers * count if len(numbers) == 1 else numbers

    def number(self, key: str) -> float:
        """One number.

        Raises:
            CheckpointError: it is not a number.
        """
        value = self.values[key]
        if not _is_number(value):
            raise self._invalid(key, "a number")
        return float(value)

    def count(self, key: str) -> int:
        """One integer.

        Raises:
            CheckpointError: it is not an integer; YAML also has the numbers `.inf` and `.nan`.
        """
        value = self.number(key)
        if not value.is_integer() or abs(value) > _LARGEST:
            raise self._invalid(key, "a whole number")
        return int(value)

    def flag(self, key: str) -> bool:
        """True or False; a string such as "no" would be truthy.

        Raises:
            CheckpointError: it is neither.
        """
        value = self.values[key]
        if not isinstance(value, bool):
            raise self._invalid(key, "True or False")
        return value

    def _invalid(self, key: str, expected: str) -> CheckpointError:
        got = shown(self.values[key])
        return CheckpointError(f"{self.source}: {key}: expected {expected}, got {got}")

    def require(self, key: str, *allowed: object) -> None:
        """Refuse a value that the network does not support.

        Raises:
            CheckpointError: the value is not in `allowed`.
        """
        if self.values[key] not in allowed:
            known = " or ".join(repr(value) for value in allowed)
            raise CheckpointError(
                f"{self.source}: {key} is {shown(self.values[key])}{self.by_default(key)}, which "
                f"cannot be exported; expected {known}"
            )

    def by_default(self, key: str) -> str:
        """For messages: whether the value is detectron2's default."""
        is_default = key in self.configured and key not in self.explicit
        return " by default (not set in the file)" if is_default else ""


def assumed_settings(base: str) -> Settings:
    """The zoo's base file of the architecture, for weights without a configuration."""
    return Settings({**DEFAULTS, **BASES[base]}, f"detectron2's {base}", frozenset())


def read_settings(path: Path, is_implicit: bool = False) -> Settings:
    """Read a configuration, complete or with a `_BASE_`, or of LazyConfig.

    Missing keys have their defaults.

    Args:
        path: of the file.
        is_implicit: the file is not from the user but is in the folder of the weights.

    Raises:
        CheckpointError: unreadable, not detectron2's, or its base does not exist and is not the
            zoo's.
    """
    tree = read_yaml(path)
    if lazy_config.is_lazy(tree):
        values = {**DEFAULTS, **BASES["Base-RCNN-FPN.yaml"], **lazy_config.DEFAULTS}
        explicit = lazy_config.lazy_keys(tree)
        return Settings({**values, **explicit}, path.name, frozenset(DEFAULTS), explicit=explicit)
    explicit = {}
    for content in _chain(path):
        explicit = {**content, **explicit}
    known = {key: value for key, value in explicit.items() if key in DEFAULTS}
    relevant = [k for k in explicit if k not in _IRRELEVANT]
    unknown = [k for k in relevant if k not in DEFAULTS and not k.startswith(_IRRELEVANT_FAMILIES)]
    if len(unknown) == len(explicit):
        where, remedy = "", "expected the config.yaml of a training"
        if is_implicit:
            where = " in the folder of the weights"
            remedy = "move it elsewhere, or pass detectron2's with --config"
        raise CheckpointError(
            f"{path}:{where} is not a detectron2 configuration, it has none of its keys; {remedy}"
        )
    values = {**DEFAULTS, **known}
    return Settings(values, path.name, frozenset(DEFAULTS), tuple(sorted(unknown)), explicit)


def _chain(path: Path) -> Iterator[dict[str, Any]]:
    """Flat contents of a file and of its bases, starting with the file."""
    first = path
    for _ in range(_MOST_BASES):
        content = dict(read_yaml(path))
        base = content.pop("_BASE_", None)
        yield dict(_flat(content))
        if base is None:
            return
        if not isinstance(base, str):
            raise CheckpointError(f"{path}: _BASE_: expected a file name, got {shown(base)}")
        base_path = path.parent / base
        try:
            exists = base_path.is_file()
        except (OSError, ValueError):  # an invalid file name
            exists = False
        if not exists:
            name = Path(base).name
            if name not in BASES:
                raise CheckpointError(
                    f"{path}: its _BASE_ {shown(base, 300)} does not exist; add the file, or pass "
                    "the complete configuration of the training (config.yaml, or cfg.dump())"
                )
            yield dict(BASES[name])
            return
        path = base_path
    raise CheckpointError(f"{first}: more than {_MOST_BASES} files by _BASE_; expected fewer")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _literal(value)


def _literal(value: object) -> object:
    """detectron2 evaluates strings such as "(10.0, 10.0, 5.0, 5.0)" as Python literals."""
    if not isinstance(value, str) or len(value) > _LONGEST_LITERAL:
        return value
    try:
        return _as_lists(ast.literal_eval(value))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    except TypeError:  # "{[]}": lists are not hashable
        return value


def _as_lists(value: object) -> object:
    """detectron2 accepts a tuple if its default is a list."""
    return [_as_lists(v) for v in value] if isinstance(value, list | tuple) else value


def _is_number(value: object) -> bool:
    """Whether it is a float, or an integer that converts to float exactly."""
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= _LARGEST)


def _are_numbers(value: object) -> TypeGuard[list[float] | tuple[float, ...]]:
    return isinstance(value, list | tuple) and all(_is_number(v) for v in value)


def shown(value: object, most: int = 60) -> str:
    """A value on one short line."""
    try:
        text = ascii(value)
    except ValueError:  # Python does not print integers of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= most else f"{text[:most]}…"
