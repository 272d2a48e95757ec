"""What the folders promise: import direction, lazy imports, the command table, file lengths."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from maskport import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model", "runtime", "export", "calib")
# Each package may import those before it; of `model`, `runtime` may import only these modules,
# and `runtime/sessions/torch.py` more.
ALLOWED = {
    "model": {"model"},
    "runtime": {"runtime"},
    "export": {"export", "runtime", "model"},
    "calib": {"calib", "export", "runtime", "model"},
}
TORCH_FREE = ("model.spec", "model.errors", "model.spec_json")
REACHES_THE_NETWORK = Path("runtime/sessions/torch.py")
MAX_LINES = 400


def _sources(*folders: str) -> list[Path]:
    return [p for f in folders for p in sorted((ROOT / f).rglob("*.py"))]


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            is_package = (ROOT / node.module.replace(".", "/")).is_dir()
            names = {f"{node.module}.{a.name}" for a in node.names} if is_package else set()
            found |= names or {node.module}
    return found


@pytest.mark.parametrize("path", _sources(*PACKAGES), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    relative = path.relative_to(ROOT)
    package = relative.parts[0]
    for name in _imports(path):
        head = name.split(".")[0]
        if head not in PACKAGES:
            continue
        if package == "runtime" and head == "model":
            is_free = any(name == free or name.startswith(f"{free}.") for free in TORCH_FREE)
            assert is_free or relative == REACHES_THE_NETWORK, name
        else:
            assert head in ALLOWED[package], f"{relative} imports {name}"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize(
    "path", _sources(*PACKAGES, "bench", "examples"), ids=lambda p: str(p.relative_to(ROOT))
)
def test_private_names_stay_in_their_file(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    names = [a for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names]
    assert not [alias.name for alias in names if _is_private(alias.name)]
    modules = {alias.asname or alias.name for alias in names if alias.name.islower()}
    reached = [
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id in modules and _is_private(node.attr)
    ]
    assert not reached


def test_oracles_import_nothing_of_ours() -> None:
    for path in _sources("tests/oracles"):
        heads = {name.split(".")[0] for name in _imports(path)}
        assert not heads & {*PACKAGES, "torch", "torchvision"}, path.name


@pytest.mark.parametrize(
    "path",
    _sources(*PACKAGES, "bench", "examples", "tests"),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_a_file_holds_one_idea(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_has_a_main_that_explains_itself(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(COMMANDS[verb][0])
    with pytest.raises(SystemExit) as left:
        module.main(["--help"])
    assert left.value.code == 0
    assert f"maskport {verb}" in capsys.readouterr().out


def test_no_command_module_is_missing_from_the_table() -> None:
    modules = {module for module, _ in COMMANDS.values()}
    with_main = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in _sources(*PACKAGES)
        if "\ndef main(argv" in path.read_text("utf-8")
    }
    assert with_main == modules


def _loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "module", ["runtime.predictor", "runtime.predict", "runtime.compare.attribution", "maskport"]
)
def test_embedding_loads_numpy_and_pillow_only(module: str) -> None:
    heavy = {
        "torch", "torchvision", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "cv2",
        "matplotlib", "pycocotools", "scipy",
    }  # fmt: skip
    assert not _loaded_by(f"import {module}") & heavy


def test_export_help_needs_no_torch() -> None:
    assert "torch" not in _loaded_by("import export.onnx")
