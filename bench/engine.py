"""Time, memory and size of TensorRT-RTX engines of R50-FPN, built on a CPU for every architecture.

v1 and v2, batch 1 and 1:4:8, at 800x1344. Every graph is first checked in ONNX Runtime against
torchvision's eager model; the engine's manifest has the hash of that graph. Every build is a
process of its own. Exit status 1 when one takes over 60 s or fails.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import child, results
from runtime.artifacts.engine_manifest import read_engine_file
from runtime.cli.console import Bar

ARCHITECTURES = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
BATCHES = ("1", "1:4:8")
MAX_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Row:
    """One engine; seconds and peak resident GB (1e9 bytes) of its process."""

    model: str
    batch: str
    architecture: str
    seconds: float
    build_seconds: float
    peak_gb: float
    size_mb: float
    onnx_sha256: str
    checked: str

    @property
    def passed(self) -> bool:
        """Whether the whole process is within the limit."""
        return self.seconds < MAX_SECONDS


def main() -> int:
    """Build all; status 1 when one exceeds the limit."""
    args = _arguments()
    names = args.gpu.split(",")
    bar = Bar(2 * len(BATCHES) * len(names), "engines")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for model, graph, batch, checked in _graphs(Path(folder), args.weights):
            for architecture in names:
                rows.append(_build(model, graph, batch, architecture, checked))
                bar.advance()
    _report(rows, args)
    return 0 if all(row.passed for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    # `bench.photos` has this path too, but imports PyTorch; see `bench.child`.
    data = Path(os.environ.get("MASKPORT_DATA") or ROOT.parent / "shared" / "data")
    weights = data / "weights" / "r50_fpn_coco24.pth"
    parser.add_argument("--weights", type=Path, default=weights, help="of maskrcnn_resnet50_fpn")
    parser.add_argument("--gpu", default=",".join(ARCHITECTURES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _graphs(folder: Path, v1_weights: Path) -> Iterator[tuple[str, Path, str, str]]:
    """Export and check each graph: model, file, batch, result of the check."""
    v2_weights = folder / "v2.pth"
    child.run(["-c", _MAKE_V2, str(v2_weights)])
    for model, weights in (("R50-FPN v1", v1_weights), ("R50-FPN v2", v2_weights)):
        for batch in BATCHES:
            graph = folder / f"{model[-2:]}-{batch.replace(':', '-')}.onnx"
            export = ["-m", "export.onnx", str(weights), "-o", str(graph), "--batch", batch]
            run = child.run([*export, "--target", "tensorrt-rtx", "--size", "800x1344"])
            check = re.search(r"^checked: (\d+ of \d+ detections equal)", run.output, re.MULTILINE)
            if check is None:
                raise SystemExit(f"error: {graph.name} was not checked: {run.output[-200:]}")
            yield model, graph, batch, check[1]
            graph.unlink()


_MAKE_V2 = """
import sys, torch
from torchvision.models.detection import maskrcnn_resnet50_fpn_v2
from tests.lively import enliven
torch.manual_seed(0)
model = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
torch.save(enliven(model, 0).state_dict(), sys.argv[1])
"""


def _build(model: str, graph: Path, batch: str, architecture: str, checked: str) -> Row:
    run = child.run(["-m", "export.engine", str(graph), "--gpu", architecture])
    engine = graph.with_name(f"{graph.stem}.{architecture}.engine")
    info = read_engine_file(engine).info
    engine.unlink()
    return Row(
        model,
        batch,
        architecture,
        round(run.seconds, 1),
        info.build_seconds,
        round(run.peak_gb, 2),
        round(info.size_bytes / 1e6, 1),
        info.onnx_sha256[:12],
        checked,
    )


def _report(rows: list[Row], args: argparse.Namespace) -> None:
    columns = (
        "model", "batch", "GPU", "process s", "of which build s", "peak GB", "engine MB",
        "graph SHA-256", "the graph in ONNX Runtime", f"limit {MAX_SECONDS} s",
    )  # fmt: skip
    cells = [
        [
            row.model, row.batch, row.architecture, f"{row.seconds:.1f}",
            f"{row.build_seconds:.1f}", f"{row.peak_gb:.2f}", f"{row.size_mb:.0f}",
            row.onnx_sha256, row.checked, "kept" if row.passed else "EXCEEDED",
        ]
        for row in rows
    ]  # fmt: skip
    body = results.table(columns, cells)
    data = {"rows": [asdict(row) for row in rows]}
    results.write("Engines built without a GPU", body, data, args.json, args.markdown)


if __name__ == "__main__":
    sys.exit(main())
