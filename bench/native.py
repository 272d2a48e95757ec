"""The `native` graph, as TensorRT compiles it, in ONNX Runtime against torchvision's eager model.

The eager model pads to the same canvas: 800x1344, or 1344x800 for portrait photos. All photos of
val2017 and the fitted ones. Also: noise in the padding, the certificate's outputs, and the eager
model with that canvas against itself without (padding changes features at a photo's edge). Exit
status 1 when a difference is beyond the limits or unexplained, or a result is not certified.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import photos, results
from export.onnx import export_onnx
from export.parity.torchvision_reference import EagerRun, TorchvisionEager
from export.tracing import GraphShape
from model.checkpoint import SpecOptions
from runtime.cli.console import Bar
from runtime.compare.attribution import explain
from runtime.compare.limits import Verdict, check
from runtime.compare.matching import Comparison, compare
from runtime.postprocessing.from_raw import from_raw, raw_rows
from runtime.preprocessing.canvas import Canvas, to_canvas
from runtime.sessions.open import open_session
from runtime.sessions.session import Outputs, Session
from runtime.sources.photos import decode

CANVASES = ((800, 1344), (1344, 800))
SHORT, LONG = 800, 1333


@dataclass(slots=True)
class Tally:
    """Sums over one set of photos."""

    native: list[Comparison] = field(default_factory=list)
    unpadded: list[Comparison] = field(default_factory=list)
    runs: dict[str, EagerRun] = field(default_factory=dict)
    nms_open: int = 0
    candidates_cut: int = 0
    samples_cut: int = 0
    noisy_padding: int = 0
    changed_by_noise: int = 0


def main() -> int:
    """Run both sets; status 1 when something is beyond its limit."""
    args = _arguments()
    sets = {"val2017": photos.val_photos(), "fitted": photos.fitted_photos()}
    rows: list[tuple[str, Tally, Verdict, Verdict]] = []
    with tempfile.TemporaryDirectory() as folder:
        sessions = {hw: _export(hw, Path(folder)) for hw in CANVASES}
        for name, files in sets.items():
            tally = _run(files[: args.photos], sessions)
            verdict = _explained(tally)
            rows.append((name, tally, verdict, check(tally.unpadded)))
    _report(rows, args)
    return 0 if all(_passed(tally, verdict) for _, tally, verdict, _ in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, help="only so many photos per set")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _passed(tally: Tally, verdict: Verdict) -> bool:
    certified = tally.nms_open == tally.candidates_cut == tally.samples_cut == 0
    return verdict.passed and certified and tally.changed_by_noise == 0


def _explained(tally: Tally) -> Verdict:
    return explain(check(tally.native), tally.native, lambda image: tally.runs[image].trace)


def _export(hw: tuple[int, int], folder: Path) -> Session:
    path = folder / f"{hw[0]}x{hw[1]}.onnx"
    export_onnx(
        photos.fitted_weights(),
        path,
        SpecOptions(short_side=SHORT, long_side=LONG),
        GraphShape(batch=1, height=hw[0], width=hw[1]),
        check_photo=None,
        target="tensorrt-rtx",
    )
    return open_session(path, None, None)


def _run(files: Sequence[Path], sessions: Mapping[tuple[int, int], Session]) -> Tally:
    checkpoint = photos.load_fitted(SHORT, LONG)
    model = photos.torchvision_model(checkpoint)
    on_canvas = {hw: TorchvisionEager(checkpoint, hw, model) for hw in CANVASES}
    plain = TorchvisionEager(checkpoint, model=model)
    tally, bar = Tally(), Bar(len(files), "photos")
    for file in files:
        pixels = decode(file)
        hw = CANVASES[0] if pixels.shape[1] >= pixels.shape[0] else CANVASES[1]
        run = on_canvas[hw].run(pixels)
        tally.runs[file.name] = run
        tally.native.append(_native(file.name, pixels, run, sessions[hw], tally))
        unpadded = plain.run(pixels).detections
        tally.unpadded.append(compare(unpadded, run.detections, file.name))
        bar.advance()
    return tally


def _native(
    name: str, pixels: npt.NDArray[np.uint8], run: EagerRun, session: Session, tally: Tally
) -> Comparison:
    manifest, spec = session.artifact.manifest, session.artifact.spec
    assert manifest.height is not None
    assert manifest.width is not None
    canvas = to_canvas([pixels], spec.preprocess, (manifest.height, manifest.width), 1)
    outputs = _run_session(session, canvas)
    tally.nms_open += int(outputs["nms_open"].sum())
    tally.candidates_cut += int(outputs["candidates_cut"].sum())
    tally.samples_cut += int(outputs["samples_cut"].sum())
    noisy = _run_session(session, _with_noise(canvas))
    tally.noisy_padding += 1
    tally.changed_by_noise += any(not np.array_equal(outputs[k], noisy[k]) for k in outputs)
    height, width = (int(side) for side in canvas.image_hw[0])
    detections = from_raw(raw_rows(outputs, 0), spec, pixels.shape[:2], (height, width))
    return compare(run.detections, detections, name)


def _run_session(session: Session, canvas: Canvas) -> Outputs:
    return session.run({"images": canvas.images, "image_hw": canvas.image_hw})


def _with_noise(canvas: Canvas) -> Canvas:
    rng = np.random.default_rng(0)
    images = rng.normal(0, 50, canvas.images.shape).astype(np.float32)
    height, width = (int(side) for side in canvas.image_hw[0])
    images[0, :, :height, :width] = canvas.images[0, :, :height, :width]
    return Canvas(images, canvas.image_hw, canvas.origin_yx)


def _report(rows: Sequence[tuple[str, Tally, Verdict, Verdict]], args: argparse.Namespace) -> None:
    columns = (
        "photos", "compared", "detections", "equal", "score", "box px", "mask IoU", "near ties",
        "unexplained", "nms_open", "candidates_cut", "changed by noise in the padding", "verdict",
    )  # fmt: skip
    cells: list[list[str]] = []
    for name, tally, verdict, unpadded in rows:
        state = "equal" if _passed(tally, verdict) else "DIFFERENT"
        count = f"{len(tally.native)} {name}"
        cells.append(
            [
                count,
                "native graph in ONNX Runtime, against eager on the same canvas",
                *_numbers(verdict),
                str(verdict.near_tie_rows),
                str(verdict.unexplained_rows),
                str(tally.nms_open),
                str(tally.candidates_cut),
                f"{tally.changed_by_noise} of {tally.noisy_padding}",
                state,
            ]
        )
        cells.append(
            [
                count,
                "eager on that canvas, against eager without",
                *_numbers(unpadded),
                *[""] * 5,
                "no limit",
            ]
        )
    excesses = [f"- {e}" for _, _, verdict, _ in rows for e in verdict.excesses]
    body = results.table(columns, cells)
    if excesses:
        body += "\n\nDifferences beyond the limits:\n\n" + "\n".join(excesses)
    data: dict[str, Any] = {"rows": [dict(zip(columns, c, strict=True)) for c in cells]}
    results.write("The native graph on real photos", body, data, args.json, args.markdown)


def _numbers(verdict: Verdict) -> list[str]:
    return [
        str(verdict.detections),
        str(verdict.equal_detections),
        f"{verdict.worst_score_diff or 0:.1e}",
        f"{verdict.worst_box_diff_px or 0:.5f}",
        f"{1 if verdict.worst_mask_iou is None else verdict.worst_mask_iou:.5f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
