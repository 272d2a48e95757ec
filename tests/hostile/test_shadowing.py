"""A working directory with a `model.py`, `export/` or `runtime/` of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What a user's folder may hold; none of it may run in place of maskport's code.
SHADOWS = {
    "model.py": ("model.py",),
    "model-package": ("model/__init__.py",),
    "runtime.py": ("runtime.py",),
    "runtime-package": ("runtime/__init__.py", "runtime/cli/console.py"),
    "calib.py": ("calib.py",),
    "several": ("model.py", "runtime/__init__.py", "calib.py"),
}
EXPORT = ("export/__init__.py",)


def _write(folder: Path, files: tuple[str, ...]) -> Path:
    """Modules that print a line when they are imported."""
    for name in files:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("print('imported')\n")
    return folder


def _run(folder: Path, *args: str, is_imported: bool = False) -> subprocess.CompletedProcess[str]:
    """Python in `folder` with the checkout on its path, but behind the folder itself."""
    done = subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ("imported" in done.stdout) == is_imported
    return done


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        *(("export.onnx", kind) for kind in SHADOWS),
        # With a `runtime` in the folder Python itself never reaches ours.
        *(("runtime.predict", kind) for kind in SHADOWS if "runtime" not in "".join(SHADOWS[kind])),
    ],
)
def test_a_module_names_the_file_that_hides_it(module: str, kind: str, tmp_path: Path) -> None:
    done = _run(_write(tmp_path, SHADOWS[kind]), "-m", module, "weights.pth")
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: '")
    assert str(tmp_path / SHADOWS[kind][0]) in done.stderr
    assert "run the command `maskport`" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_hidden_export_is_one_line_of_python(tmp_path: Path) -> None:
    """Python imports the user's package first, and finds no export.onnx in it, or ours."""
    folder = _write(tmp_path, EXPORT)
    done = _run(folder, "-m", "export.onnx", "weights.pth", is_imported=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No module named export.onnx" in done.stderr or "hides maskport's" in done.stderr


@pytest.mark.parametrize(
    ("verb", "kind"),
    [*(("export", kind) for kind in (*SHADOWS, "export")), ("predict", "several"),
     ("evaluate", "several")],
)  # fmt: skip
def test_the_command_works_in_such_a_folder(verb: str, kind: str, tmp_path: Path) -> None:
    folder = _write(tmp_path, SHADOWS.get(kind, EXPORT))
    done = _run(folder, "-m", "maskport", verb, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: maskport {verb}" in done.stdout
    assert done.stderr == ""


def test_the_console_script_reads_weights_there(tmp_path: Path) -> None:
    """As the installed script does, here with the folder first on the path to make it harder."""
    folder = _write(tmp_path, (*SHADOWS["several"], *EXPORT))
    code = "import sys, maskport; sys.exit(maskport.main(['export', 'weights.pth']))"
    done = _run(folder, "-c", code)
    assert done.returncode == 1
    assert done.stderr.startswith("error: weights.pth: no such file")
    assert done.stderr.count("\n") == 1


def test_an_import_names_the_file_that_hides_it(tmp_path: Path) -> None:
    done = _run(_write(tmp_path, ("model.py",)), "-c", "import runtime.predictor")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: error: 'model' resolves to ")
    assert str(tmp_path / "model.py") in last


def test_folders_without_code_hide_nothing(tmp_path: Path) -> None:
    for name in ("model", "export", "runtime", "calib"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
    done = _run(tmp_path, "-m", "export.onnx", "--help")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("args", "status"), [(("--version",), 0), (("--help",), 0), ((), 2), (("exprot",), 2)]
)
def test_the_table_of_commands_works_anywhere(
    args: tuple[str, ...], status: int, tmp_path: Path
) -> None:
    folder = _write(tmp_path, (*SHADOWS["several"], *EXPORT))
    done = _run(folder, "-m", "maskport", *args)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
