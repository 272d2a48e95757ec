"""Apply the inference settings of a training's configuration to the spec of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from model.errors import CheckpointError, SpecError
from model.families.mmdetection.config import Config, shown
from model.spec import AnchorSpec, BoxHeadSpec, MaskHeadSpec, ModelSpec, PoolerSpec, RpnSpec
from model.spec.checks import MOST
from model.spec.input import PreprocessSpec

_T = TypeVar("_T")
_Weights = tuple[float, float, float, float]
_RPN_HEAD = ("model.rpn_head.",)
_GENERATOR = ("model.rpn_head.anchor_generator.", "model.rpn_head.anchor_")  # 2 and 3; 1
_BOX_HEAD = ("model.roi_head.bbox_head.", "model.bbox_head.")
_BOX_POOL = ("model.roi_head.bbox_roi_extractor.", "model.bbox_roi_extractor.")
_MASK_POOL = ("model.roi_head.mask_roi_extractor.", "model.mask_roi_extractor.")
_RPN_TEST = ("model.test_cfg.rpn.", "test_cfg.rpn.")
_RCNN_TEST = ("model.test_cfg.rcnn.", "test_cfg.rcnn.")
_PIPELINES = (
    "test_dataloader.dataset.pipeline",
    "test_dataloader.dataset.dataset.pipeline",
    "data.test.pipeline",
    "data.test.dataset.pipeline",
    "test_pipeline",
)
# Any other value needs a computation that the network does not have.
_FIXED: tuple[tuple[tuple[str, ...], str, object], ...] = (
    (_GENERATOR, "type", "AnchorGenerator"),
    ((*_RPN_HEAD, *_BOX_HEAD), "bbox_coder.type", "DeltaXYWHBBoxCoder"),
    ((*_RPN_HEAD, *_BOX_HEAD), "bbox_coder.clip_border", True),
    ((*_RPN_HEAD, *_BOX_HEAD), "bbox_coder.add_ctr_clamp", False),
    (_BOX_HEAD, "loss_cls.use_sigmoid", False),
    (_BOX_HEAD, "loss_cls.type", "CrossEntropyLoss"),
    ((*_BOX_POOL, *_MASK_POOL), "type", "SingleRoIExtractor"),
    ((*_BOX_POOL, *_MASK_POOL), "roi_layer.type", "RoIAlign"),
    ((*_BOX_POOL, *_MASK_POOL), "roi_layer.pool_mode", "avg"),
    (_RPN_TEST, "nms_across_levels", False),
    ((*_RPN_TEST, *_RCNN_TEST), "nms.type", "nms"),
    ((*_RPN_TEST, *_RCNN_TEST), "nms.class_agnostic", False),
    (("model.backbone.",), "dilations", [1, 1, 1, 1]),
    (("model.backbone.",), "strides", [1, 2, 2, 2]),
    (("model.neck.",), "upsample_cfg.mode", "nearest"),
)


@dataclass(frozen=True, slots=True)
class Applied:
    """A spec, its fields that the configuration sets, and notes on settings without effect."""

    spec: ModelSpec
    fields: frozenset[str]
    notes: tuple[str, ...]


def apply_config(spec: ModelSpec, config: Config, path: Path) -> Applied:
    """Apply a configuration to the spec of the weights.

    Raises:
        CheckpointError: the configuration contradicts the weights, or itself.
    """
    if config.problem is not None:
        note = f"its training's configuration was not read: {config.problem}; defaults are assumed"
        return Applied(spec, frozenset(), (note,))
    reader = _Reader(config, path)
    reader.note_unsupported()
    try:
        applied = replace(
            spec,
            preprocess=_preprocess(spec.preprocess, reader),
            anchors=_anchors(spec, reader),
            rpn=_rpn(spec.rpn, reader),
            box=_box(spec.box, reader),
            mask=None if spec.mask is None else _mask(spec.mask, reader),
        )
    except SpecError as error:
        raise CheckpointError(
            f"{path}: its training's configuration describes no valid network ({error}); save the "
            "state dict alone and set the values in a file for --spec"
        ) from error
    return Applied(applied, frozenset(reader.fields), tuple(reader.notes))


@dataclass(slots=True)
class _Reader:
    """Looks up values and records the fields that were set and the values that were not valid."""

    config: Config
    path: Path
    fields: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def read(
        self,
        where: tuple[str, ...],
        keys: str,
        convert: Callable[[object], _T | None],
        expected: str,
        field: str = "",
    ) -> _T | None:
        """The converted value of the first of the keys that occurs; None if it is not valid."""
        item = self._find(where, keys)
        if item is None:
            return None
        value = convert(item[1])
        if value is None:
            self._note(item, expected)
        elif field:
            self.fields.add(field)
        return value

    def count(self, where: tuple[str, ...], keys: str, field: str) -> int | None:
        return self.read(where, keys, _count, f"a whole number from 1 to {MOST}", field)

    def fraction(self, where: tuple[str, ...], keys: str, field: str) -> float | None:
        return self.read(where, keys, _fraction, "a number from 0 to 1", field)

    def positives(self, where: tuple[str, ...], keys: str) -> tuple[float, ...] | None:
        return self.read(where, keys, _positives, "a list of positive numbers")

    def weights(self, where: tuple[str, ...], field: str) -> _Weights | None:
        """Weights are the inverse of the deltas' stds; means other than 0 are not supported."""
        keys = "bbox_coder.target_means target_means"
        self.read(where, keys, lambda v: v if v == [0, 0, 0, 0] else None, "[0, 0, 0, 0]")
        keys = "bbox_coder.target_stds target_stds"
        return self.read(where, keys, _inverses, "four positive numbers", field)

    def require_equal(self, where: tuple[str, ...], keys: str, expected: list[float]) -> None:
        """Refuse a value, like the pyramid's strides, that contradicts the weights."""
        item = self._find(where, keys)
        if item is not None and _flat_pairs(item[1]) != expected:
            raise CheckpointError(
                f"{self.path}: {item[0]} of its training is {shown(item[1])}, which cannot be "
                f"exported with these weights; expected {expected}"
            )

    def note_unsupported(self) -> None:
        """Note the values that need another computation."""
        for where, key, expected in _FIXED:
            for prefix in where:
                item = self.config.find(prefix + key)
                if item is not None and _without_registry(item[1]) != expected:
                    self._note(item, shown(expected))

    def _find(self, where: tuple[str, ...], keys: str) -> tuple[str, object] | None:
        return self.config.find(*(prefix + key for prefix in where for key in keys.split()))

    def _note(self, item: tuple[str, object], expected: str) -> None:
        self.notes.append(
            f"{item[0]} of its training is {shown(item[1])}, which is not applied; "
            f"expected {expected}"
        )


def _preprocess(pre: PreprocessSpec, reader: _Reader) -> PreprocessSpec:
    where, steps = _pipeline(reader.config)
    flat = Config({key: value for step in steps for key, value in step.items()})
    resize = _Reader(flat, reader.path)
    expected = "one (width, height) of 1 to 16384"
    sides = resize.read(("",), "img_scale scale", _sides, expected)
    resize.read(("",), "keep_ratio", lambda v: v if v is True else None, "True")
    divisor = resize.read(
        ("",), "size_divisor", lambda v: _count(v, 1024), "a whole number from 1 to 1024"
    )
    reader.notes.extend(f"{where}: {note}" for note in resize.notes)
    if divisor is None:
        divisor = reader.count(("model.data_preprocessor.",), "pad_size_divisor", "")
    if sides is not None:
        reader.fields.update(("preprocess.short_side", "preprocess.long_side"))
        pre = replace(pre, short_side=min(sides), long_side=max(sides))
    return pre if divisor is None else replace(pre, size_divisor=divisor)


def _pipeline(config: Config) -> tuple[str, list[Mapping[str, object]]]:
    """The steps of the test pipeline, those inside test-time augmentation included."""
    where, steps = config.find(*_PIPELINES) or ("", [])
    return where, list(_steps(steps))


def _steps(steps: object, depth: int = 0) -> Iterator[Mapping[str, object]]:
    for step in steps if isinstance(steps, list) else []:
        if isinstance(step, Mapping) and _without_registry(step.get("type")) in (
            "MultiScaleFlipAug",
            "Pad",
            "Resize",
        ):
            yield step
            if depth == 0:
                yield from _steps(step.get("transforms"), 1)


def _anchors(spec: ModelSpec, reader: _Reader) -> AnchorSpec:
    anchors, strides = spec.anchors, spec.box.pooler.strides
    levels = [float(s) for s in (*strides, 2 * strides[-1])]
    reader.require_equal(_GENERATOR, "strides", levels)
    bases = reader.positives(_GENERATOR, "base_sizes") or tuple(levels)
    scales = reader.positives(_GENERATOR, "scales") or _octaves(reader)
    ratios = reader.positives(_GENERATOR, "ratios")
    if scales is None or ratios is None:
        return anchors
    if len(scales) * len(ratios) != anchors.per_cell or len(bases) != len(levels):
        raise CheckpointError(
            f"{reader.path}: its training's configuration has {len(scales)} scales and "
            f"{len(ratios)} ratios of anchors on {len(bases)} levels; expected "
            f"{anchors.per_cell} anchors per cell on {len(levels)} levels, as the weights have"
        )
    reader.fields.update(("anchors.sizes", "anchors.ratios"))
    scale_major = reader.config.find(*(w + "scale_major" for w in _GENERATOR))
    offset = reader.fraction(_GENERATOR, "center_offset", "anchors.offset")
    return replace(
        anchors,
        sizes=tuple(tuple(base * scale for scale in scales) for base in bases),
        ratios=(ratios,) * len(levels),
        order="size-major" if scale_major and scale_major[1] is False else anchors.order,
        offset=anchors.offset if offset is None else offset,
    )


def _octaves(reader: _Reader) -> tuple[float, ...] | None:
    base = reader.read(_GENERATOR, "octave_base_scale", _positive, "a positive number")
    count = reader.read(_GENERATOR, "scales_per_octave", lambda v: _count(v, 16), "1 to 16")
    if base is None or count is None:
        return None
    return tuple(base * 2 ** (i / count) for i in range(count))


def _rpn(rpn: RpnSpec, reader: _Reader) -> RpnSpec:
    pre_nms = reader.count(_RPN_TEST, "nms_pre", "rpn.pre_nms")
    post_nms = reader.count(_RPN_TEST, "max_per_img max_num nms_post", "rpn.post_nms")
    nms_iou = reader.fraction(_RPN_TEST, "nms.iou_threshold nms.iou_thr nms_thr", "rpn.nms_iou")
    min_size = reader.read(_RPN_TEST, "min_bbox_size", _not_negative, "0 or more", "rpn.min_size")
    per_level = reader.config.find(*(where + "nms_post" for where in _RPN_TEST))
    if per_level is not None and (_count(per_level[1]) or 0) < (post_nms or rpn.post_nms):
        reader.notes.append(
            f"{per_level[0]} of its training is {shown(per_level[1])}, fewer than the limit for "
            f"all levels, which is not applied; expected at least {post_nms or rpn.post_nms}"
        )
    return replace(
        rpn,
        pre_nms=_or(pre_nms, rpn.pre_nms),
        post_nms=_or(post_nms, rpn.post_nms),
        nms_iou=_or(nms_iou, rpn.nms_iou),
        min_size=_or(min_size, rpn.min_size),
        box_weights=_or(reader.weights(_RPN_HEAD, "rpn.box_weights"), rpn.box_weights),
    )


def _box(box: BoxHeadSpec, reader: _Reader) -> BoxHeadSpec:
    score = reader.fraction(_RCNN_TEST, "score_thr", "box.score_threshold")
    nms_iou = reader.fraction(_RCNN_TEST, "nms.iou_threshold nms.iou_thr nms_thr", "box.nms_iou")
    detections = _or(reader.count(_RCNN_TEST, "max_per_img", "box.detections"), box.detections)
    pooler = _pooler(box.pooler, reader, _BOX_POOL, "box.pooler")
    if pooler.output_size != box.pooler.output_size:
        side = box.pooler.output_size
        reader.require_equal(_BOX_POOL, "roi_layer.output_size roi_layer.out_size", [float(side)])
    return replace(
        box,
        pooler=pooler,
        score_threshold=_or(score, box.score_threshold),
        nms_iou=_or(nms_iou, box.nms_iou),
        detections=detections,
        # With more detections more candidates must reach NMS, or too few remain.
        candidates=max(box.candidates, min(4 * detections, MOST)),
        box_weights=_or(reader.weights(_BOX_HEAD, "box.box_weights"), box.box_weights),
    )


def _mask(mask: MaskHeadSpec, reader: _Reader) -> MaskHeadSpec:
    threshold = reader.read(
        _RCNN_TEST,
        "mask_thr_binary",
        lambda v: n if (n := _fraction(v)) not in (0, 1) else None,
        "a number between 0 and 1",
        "mask.threshold",
    )
    return replace(
        mask,
        pooler=_pooler(mask.pooler, reader, _MASK_POOL, "mask.pooler"),
        threshold=_or(threshold, mask.threshold),
    )


def _pooler(pooler: PoolerSpec, reader: _Reader, where: tuple[str, ...], name: str) -> PoolerSpec:
    layer = tuple(f"{w}roi_layer." for w in where)
    reader.require_equal(where, "featmap_strides", [float(s) for s in pooler.strides])
    side = reader.read(layer, "output_size out_size", _side, "a whole number")
    keys, field = "sampling_ratio sample_num", f"{name}.sampling_ratio"
    samples = reader.read(layer, keys, _samples, "a whole number up to 16", field)
    finest = reader.read(where, "finest_scale", _positive, "a positive number")
    aligned = reader.read(
        layer, "aligned", lambda v: v if isinstance(v, bool) else None, "True or False"
    )
    return replace(
        pooler,
        output_size=_or(side, pooler.output_size),
        sampling_ratio=_or(samples, pooler.sampling_ratio),
        canonical_size=_or(finest, pooler.canonical_size),
        aligned=_or(aligned, pooler.aligned),
    )


def _or(value: _T | None, default: _T) -> _T:
    return default if value is None else value


def _without_registry(value: object) -> object:
    """A class's name may have its registry as a prefix: 'mmdet.AnchorGenerator'."""
    return value.rpartition(".")[2] if isinstance(value, str) else value


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e12 else None  # false for NaN


def _positive(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and number > 1e-9 else None


def _not_negative(value: object, most: float = math.inf) -> float | None:
    number = _number(value)
    return number if number is not None and 0 <= number <= most else None


def _fraction(value: object) -> float | None:
    return _not_negative(value, 1)


def _count(value: object, most: int = MOST) -> int | None:
    number = _number(value)
    is_count = number is not None and number.is_integer() and 1 <= number <= most
    return int(number) if number is not None and is_count else None


def _samples(value: object) -> int | None:
    """0 or less is adaptive."""
    number = _number(value)
    if number is None or not number.is_integer() or number > 16:
        return None
    return max(int(number), 0)


def _side(value: object) -> int | None:
    """One number, or a pair of equal ones."""
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    return _count(value, 256)


def _positives(value: object) -> tuple[float, ...] | None:
    items = value if isinstance(value, list) else [value]
    numbers = tuple(n for item in items if (n := _positive(item)) is not None)
    return numbers if 1 <= len(numbers) == len(items) <= 64 else None


def _inverses(value: object) -> _Weights | None:
    stds = _positives(value)
    if stds is None or len(stds) != 4:
        return None
    # 1 / 0.2 is exactly 5, like the weights of other frameworks.
    return (1 / stds[0], 1 / stds[1], 1 / stds[2], 1 / stds[3])


def _sides(value: object) -> tuple[int, int] | None:
    """One (width, height), possibly in a list."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, list) or len(value) != 2:
        return None
    width, height = (_count(side, 16384) for side in value)
    return None if width is None or height is None else (width, height)


def _flat_pairs(value: object) -> list[float]:
    """Numbers, with one number for pairs such as (4, 4); NaN if not a number."""
    items = value if isinstance(value, list) else [value]
    sides = [i[0] if isinstance(i, list) and len(i) == 2 and i[0] == i[1] else i for i in items]
    return [math.nan if (n := _number(side)) is None else n for side in sides]
