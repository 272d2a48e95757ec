"""`maskport[cpu]` is enough to run a file: an environment with that and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

OURS = ("maskport.py", "model", "runtime", "export", "calib")


def _closure(extra: str) -> set[str]:
    """Distributions that `maskport[extra]` installs here, by their own metadata."""
    names: set[str] = set()
    pending = [("maskport", extra)]
    while pending:
        name, extra_name = pending.pop()
        for text in distribution(name).requires or []:
            needed = Requirement(text)
            if needed.marker is not None and not needed.marker.evaluate({"extra": extra_name}):
                continue
            key = re.sub(r"[-_.]+", "-", needed.name).lower()
            if key not in names | {"maskport"}:
                names.add(key)
                pending += [(key, e) for e in needed.extras or {""}]
    return names


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages: ours, as a wheel has them, and what they require."""
    folder = tmp_path_factory.mktemp("site")
    for name in OURS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    for name in _closure("cpu"):
        for file in distribution(name).files or ():
            head = file.parts[0]
            place = Path(str(distribution(name).locate_file(head)))
            if head not in ("..", "__pycache__") and not (folder / head).exists():
                (folder / head).symlink_to(place)
    return folder


def _python(light: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with those packages only: no site-packages, no user's, no working directory's."""
    environment = {"PYTHONPATH": str(light), "PATH": "/usr/bin:/bin", "HOME": str(light)}
    return subprocess.run(
        [sys.executable, "-S", "-P", *arguments],
        cwd=light,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_it_holds_no_torch(light: Path) -> None:
    assert {"numpy", "PIL", "onnxruntime"} <= {p.name for p in light.iterdir()}
    for name in ("torch", "torchvision", "onnx", "cv2", "matplotlib", "pycocotools"):
        done = _python(light, "-c", f"import {name}")
        assert done.returncode == 1, name
        assert f"No module named '{name}'" in done.stderr


def test_predicts_with_an_exported_file(
    light: Path, demo_onnx: Path, demo_photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = [str(demo_onnx), str(demo_photo), "-o", str(out), "--score-threshold", "0.5"]
    done = _python(light, "-m", "maskport", "predict", *arguments)
    assert done.returncode == 0, done.stderr
    rows = json.loads((out / "results.json").read_text("utf-8"))
    assert len(rows) >= 5
    assert all(row["segmentation"]["counts"] for row in rows)
    assert (out / f"{demo_photo.stem}.png").stat().st_size > 10_000


def test_embeds(light: Path, demo_onnx: Path, demo_photo: Path) -> None:
    code = (
        "import sys\n"
        "from runtime.predictor import Predictor\n"
        "assert 'PIL' not in sys.modules, 'it waits for the first photo'\n"
        "with Predictor.open(sys.argv[1], threads=1) as predictor:\n"
        "    predictor.warm_up()\n"
        "    assert 'PIL.JpegImagePlugin' in sys.modules, 'the first photo finds it'\n"
        "    results = [r.detections for r in predictor.stream([sys.argv[2]] * 2)]\n"
        "assert not {'torch', 'onnx', 'cv2', 'matplotlib'} & set(sys.modules)\n"
        "print([len(d.rle()) for d in results], results[0].masks.shape)\n"
    )
    done = _python(light, "-c", code, str(demo_onnx), str(demo_photo))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\[(\d+), \1\] \(\1, 480, 640\)\n", done.stdout)


def test_a_checkpoint_ends_with_what_to_install(light: Path, demo_photo: Path) -> None:
    weights = ROOT / "examples" / "demo" / "shapes.pth"
    done = _python(light, "-m", "maskport", "predict", str(weights), str(demo_photo))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "pip install 'maskport[export]'" in done.stderr
    assert "Traceback" not in done.stderr
