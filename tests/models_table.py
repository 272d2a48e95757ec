"""What is supported, each row with the tests that prove it.

`python -m tests.models_table` writes the table into docs/models.md; `tests/test_models_table.py`
holds the document to it, and every proof to a test that exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.pooling_family import FAMILY as POOLERS

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- the table: python -m tests.models_table -->\n", "<!-- end of the table -->\n"

_PARITY = "tests/export/test_parity_zoo.py::test_eager_and_onnx_equal_torchvision"
_NATIVE = (
    "tests/export/test_native_zoo.py::test_native_equals_eager_on_the_same_canvas_and_compiles"
)
_FAMILY = (
    "tests/export/test_family_zoo.py::test_both_graphs_equal_the_eager_network_and_one_compiles"
)
_GOLDEN = "tests/export/test_detectron2_golden.py"
_POOLING = "tests/export/test_pooling_family.py"


@dataclass(frozen=True, slots=True)
class Row:
    """One member of the family.

    `reference` is what its numbers are held to; `proofs` are test ids, a function or one of its
    parameter sets.
    """

    member: str
    reference: str
    proofs: tuple[str, ...]


def _torchvision(member: str, kind: str) -> Row:
    return Row(
        member, "torchvision's own class", (f"{_PARITY}[{kind}]", f"{_NATIVE}[{kind}-{_way(kind)}]")
    )


def _way(kind: str) -> str:
    from tests.zoo import ZOO

    return ("landscape", "portrait")[list(ZOO).index(kind) % 2]


def _detectron2(member: str, letter: str, kind: str | None) -> Row:
    proofs = [
        f"{_GOLDEN}::test_the_eager_network[{letter}]",
        f"{_GOLDEN}::test_the_exported_file[{letter}]",
        f"{_GOLDEN}::test_native_equals_standard_and_compiles[{letter}]",
    ]
    if kind is not None:
        proofs.append(f"{_FAMILY}[{kind}]")
    return Row(member, "recorded outputs of detectron2", tuple(proofs))


def _pooler(member: str, kind: str, *names: str) -> Row:
    # Fixed averages, torchvision's own, have a `native` test by itself.
    fixed = "tests/export/test_native_pool.py::test_the_formula_equals_the_oracle"
    proofs = [
        f"tests/model/test_pooling.py::test_every_member_equals_its_loops[{names[0]}-4-eager]"
    ]
    proofs += [f"{_POOLING}::test_standard_with_any_batch_and_canvas[{name}]" for name in names]
    proofs += [
        fixed if "average-2" in name else f"{_POOLING}::test_native_and_its_form_in_pytorch[{name}]"
        for name in names
    ]
    proofs.append(f"{_POOLING}::test_tensorrt_rtx_compiles_it")
    assert all(name in POOLERS for name in names), names
    return Row(f"{member} (`{kind}`)", "float64 loops", tuple(proofs))


TABLES: dict[str, tuple[Row, ...]] = {
    "torchvision": (
        _torchvision("`maskrcnn_resnet50_fpn_v2`, BatchNorm in pyramid and heads", "v2-91"),
        _torchvision("Mask R-CNN, ResNet-18/34", "resnet18-2"),
        _torchvision("Mask R-CNN, ResNet-50/101/152", "resnet101-5"),
        _torchvision("Mask R-CNN, ResNeXt-50 32x4d", "resnext50-91"),
        _torchvision("Mask R-CNN, blocks of ResNeXt-101 32x8d", "resnext-32x8d-5"),
        _torchvision("Mask R-CNN, ResNeXt-101 32x8d at full size", "maskrcnn-resnext101_32x8d"),
        _torchvision("Mask R-CNN, MobileNet-V3-large", "mobilenet-21"),
        _torchvision("Faster R-CNN", "faster-rcnn-resnet18-91"),
        _torchvision("`fasterrcnn_resnet50_fpn`", "fasterrcnn_resnet50_fpn"),
        _torchvision("`fasterrcnn_resnet50_fpn_v2`", "fasterrcnn_resnet50_fpn_v2"),
        _torchvision("Faster R-CNN, MobileNet-V3-large", "faster-rcnn-mobilenet-2"),
        _torchvision("`keypointrcnn_resnet50_fpn`", "keypointrcnn_resnet50_fpn"),
        _torchvision("Keypoint R-CNN with masks", "keypoints-17-and-masks"),
    ),
    "detectron2": (
        _detectron2("Mask R-CNN R50-FPN", "a", None),
        _detectron2("Mask R-CNN X101-FPN", "c", None),
        _detectron2("Mask R-CNN R50-C4", "d", "c4"),
        _detectron2("Mask R-CNN R50-DC5", "e", "dc5"),
        _detectron2("Keypoint R-CNN R50-FPN", "f", "detectron2-keypoints"),
        _detectron2("Faster R-CNN R50-FPN", "g", None),
        Row(
            "GroupNorm in body, pyramid and heads; several RPN convolutions; averaged pyramid",
            "our eager network",
            (f"{_FAMILY}[group-norm]",),
        ),
        Row(
            "class-agnostic boxes and masks, sigmoid scores",
            "our eager network",
            (f"{_FAMILY}[class-agnostic-sigmoid]",),
        ),
        Row(
            "`.pth`, zoo `.pkl`, `config.yaml` or its `_BASE_`",
            "equal specs and tensors",
            (
                f"{_GOLDEN}::test_the_zoo_file_is_the_same_model",
                "tests/model/test_detectron2_dialect.py::"
                "test_weights_and_configuration_give_the_spec",
                "tests/model/test_detectron2_dialect.py::"
                "test_every_key_changes_the_spec_or_is_refused",
            ),
        ),
    ),
    "The papers'": (
        Row(
            "C4 with res5 at stride 1 on 7x7 RoIs, 300 proposals (`--spec`)",
            "our eager network",
            (f"{_FAMILY}[c4-of-the-paper]",),
        ),
        Row("RoIPool on one level (`--spec`)", "our eager network", (f"{_FAMILY}[roi-pool]",)),
        Row(
            "masks by a sigmoid of the k-th channel, no competition between classes",
            "a worked example",
            ("tests/model/test_mask_head.py::test_classes_do_not_compete",),
        ),
    ),
    "MMDetection": (
        Row(
            "Mask and Faster R-CNN, ResNet/ResNeXt + FPN, `.pth` of 1.x to 3.x",
            "NumPy, from the published code; no reference was run",
            (
                "tests/model/test_mmdetection_answers.py::test_proposals",
                "tests/model/test_mmdetection_answers.py::test_detections",
                "tests/model/test_mmdetection_dialect.py::"
                "test_every_name_of_a_real_network_is_mapped",
                f"{_FAMILY}[mmdetection]",
            ),
        ),
    ),
    "Matterport": (
        Row(
            "Mask R-CNN, ResNet-50/101 + FPN, `.h5`",
            "NumPy, from the published code; no reference was run",
            (
                "tests/model/test_matterport_pipeline.py::test_detections",
                "tests/model/test_matterport_dialect.py::"
                "test_the_names_of_the_coco_file_map_completely",
                f"{_FAMILY}[matterport]",
            ),
        ),
    ),
    "Pooling": (
        _pooler("RoIAlign, average, 1 to 4 samples", "roi_align", "align-average-2-plain"),
        _pooler("RoIAlign, adaptive", "roi_align", "align-average-adaptive-aligned"),
        _pooler("RoIAlign, maximum", "roi_align", "align-max-2"),
        _pooler("RoIAlign, samples at thirds", "roi_align", "align-even-max"),
        _pooler("RoIPool, rounded or floored", "roi_pool", "pool-round", "pool-floor"),
        _pooler("RoIWarp", "roi_warp", "warp-round-average", "warp-floor-max"),
        _pooler("crop-and-resize to P", "crop_and_resize", "crop-1-image"),
        _pooler("crop-and-resize to 2P, 2x2 max", "crop_and_resize", "crop-2-stride"),
        _pooler("precise RoI pooling", "prroi_pool", "precise-plain"),
    ),
}


def proofs() -> list[str]:
    """Every test id that a row names."""
    return [proof for rows in TABLES.values() for row in rows for proof in row.proofs]


def as_markdown() -> str:
    """The tables; each proof by its file's name and the test's."""
    parts = []
    for title, rows in TABLES.items():
        parts.append(f"### {title}\n\n| member | held to | proofs |\n|---|---|---|\n")
        for row in rows:
            shown = "<br>".join(f"`{_short(proof)}`" for proof in row.proofs)
            parts.append(f"| {row.member} | {row.reference} | {shown} |\n")
        parts.append("\n")
    return "".join(parts)


def _short(proof: str) -> str:
    path, _, name = proof.partition("::")
    return f"{Path(path).stem}::{name}".replace("|", r"\|")


def merged(text: str) -> str:
    """A document with the table between its marks."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{as_markdown()}{END}{tail}"


if __name__ == "__main__":
    DOCUMENT.write_text(merged(DOCUMENT.read_text("utf-8")), "utf-8")
