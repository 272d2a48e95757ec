"""Exports the demo model, predicts on the sample image and compares with the eager model.

make demo
"""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from export.parity.torchvision_reference import EagerDetections, TorchvisionEager
from model.checkpoint import SpecOptions, load
from model.spec import ModelSpec
from runtime.compare.attribution import explain
from runtime.compare.limits import check
from runtime.compare.matching import compare
from runtime.detections import Detections
from runtime.files import atomic_path
from runtime.predictor import Predictor
from runtime.selection import Selection
from runtime.sources.photos import decode

WEIGHTS = Path("examples/demo/shapes.pth")
NAMES = Path("examples/demo/shapes.names")
PHOTO = Path("export/data/shapes.jpg")
OUT = Path("demo-out")
MODEL = OUT / "shapes.onnx"
SHORT_SIDE, LONG_SIDE = 320, 533
SHOWN_SCORE = 0.5
RUNS = 7


def main() -> int:
    """Run the demo; return the exit status."""
    (ROOT / OUT).mkdir(exist_ok=True)
    sizes = ["--short-side", str(SHORT_SIDE), "--long-side", str(LONG_SIDE)]
    export = ["-m", "export.onnx", str(WEIGHTS), "-o", str(MODEL), "--names", str(NAMES), *sizes]
    predict = ["-m", "runtime.predict", str(MODEL), str(PHOTO), "-o", str(OUT)]
    for step in (export, [*predict, "--score-threshold", str(SHOWN_SCORE)]):
        print(f"\n$ {shlex.join(['python', *step])}", flush=True)
        if subprocess.run([sys.executable, *step], cwd=ROOT, check=False).returncode != 0:
            return 1
    print("\ncomparing with torchvision's eager model, and timing both …", flush=True)
    passed, line = _compare_with_eager()
    print(f"\npicture: {OUT / 'comparison.png'}  (photo | eager | ours)")
    print(line)
    python = _relative(Path(sys.executable))
    print(f"your own weights: {python} -m export.onnx weights.pth -o model.onnx")
    print(f"next: {python} -m runtime.predict {MODEL} {PHOTO} -o out --save overlay,jsonl")
    return 0 if passed else 1


def _compare_with_eager() -> tuple[bool, str]:
    """Write the picture; return whether the two agree, and the parity line."""
    options = SpecOptions(
        short_side=SHORT_SIDE,
        long_side=LONG_SIDE,
        names=tuple((ROOT / NAMES).read_text("utf-8").splitlines()),
    )
    checkpoint = load(ROOT / WEIGHTS, options)
    photo = decode(ROOT / PHOTO)
    eager = TorchvisionEager(checkpoint)
    run = eager.run(photo)
    image = torch.tensor(photo).permute(2, 0, 1).float() / 255
    with Predictor.open(ROOT / MODEL) as predictor, torch.inference_mode():
        ours = predictor.predict(photo)
        comparison = compare(run.detections, ours, PHOTO.name)
        verdict = explain(check([comparison]), [comparison], lambda _: run.trace)
        theirs_s, ours_s = _interleaved(
            lambda: eager.model([image])[0]["masks"] > 0.5, lambda: predictor.predict(photo).rle()
        )
    _draw(photo, _as_detections(run.detections, checkpoint.spec), ours)
    box = verdict.worst_box_diff_px
    shown = "no pair" if box is None else f"box {box:.4f} px"
    return verdict.passed, (
        f"{verdict.equal_detections} of {verdict.detections} detections equal · {shown} · "
        f"{theirs_s / ours_s:.1f}× faster than eager"
    )


def _interleaved(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of each; one untimed run first, then in turn."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(RUNS + 1):
        for call, times in zip((first, second), seconds, strict=True):
            started = time.perf_counter()
            call()
            if repeat > 0:
                times.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def _as_detections(eager: EagerDetections, spec: ModelSpec) -> Detections:
    names = tuple(spec.classes.names[label] for label in eager.labels)
    return Detections(
        eager.boxes, eager.scores, eager.labels, names, eager.mask_probs, eager.image_hw
    )


def _draw(photo: npt.NDArray[np.uint8], eager: Detections, ours: Detections) -> None:
    """Photo, eager result and ours side by side."""
    plain = Image.fromarray(photo)
    shown = Selection(score_threshold=SHOWN_SCORE)
    panels = [plain, *(d.select(shown).draw(plain) for d in (eager, ours))]
    title_px = 28
    sheet = Image.new("RGB", (3 * plain.width, plain.height + title_px), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(18)
    titles = ("photo", "torchvision, eager", "maskport, ONNX Runtime")
    for column, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        left = column * plain.width
        sheet.paste(panel, (left, title_px))
        pen.text((left + 8, 4), title, fill="black", font=font)
    with atomic_path(ROOT / OUT / "comparison.png") as temporary:
        sheet.save(temporary)


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


if __name__ == "__main__":
    sys.exit(main())
