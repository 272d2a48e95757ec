"""What the folders promise: sizes, import direction, no circles, light imports, the commands."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from maskport import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
# The most files at a package's root, and the packages that it may import.
PACKAGES = {
    "model": (12, {"model"}),
    "runtime": (13, {"runtime"}),
    "export": (14, {"export", "runtime", "model"}),
    "calib": (6, {"calib", "export", "runtime", "model"}),
}
# All that `runtime` may import of `model`; only the file that runs a checkpoint may import more.
TORCH_FREE = (
    "model.spec", "model.errors", "model.spec_json", "model.spec_options", "model.arrays",
)  # fmt: skip
REACHES_THE_NETWORK = Path("runtime/sessions/torch.py")
MAX_LINES = 400
HEAVY = {
    "torch", "torchvision", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "cv2",
    "matplotlib", "pycocotools", "hotcoco", "scipy",
}  # fmt: skip
DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- folders: REWRITE=1 pytest tests/test_architecture.py -->\n", "<!-- end -->\n"


def _sources(*folders: str) -> list[Path]:
    """Python files, relative to the root of the project."""
    return [p.relative_to(ROOT) for f in folders for p in sorted((ROOT / f).rglob("*.py"))]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"))


def _imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, inside functions too."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module
            folder = ROOT / node.module.replace(".", "/")
            for alias in node.names:
                is_module = (folder / alias.name).is_dir() or (
                    folder / f"{alias.name}.py"
                ).is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def _is_allowed(path: Path, name: str) -> bool:
    package, imported = path.parts[0], name.split(".")[0]
    if package == "runtime" and imported == "model":
        is_free = any(name == free or name.startswith(f"{free}.") for free in TORCH_FREE)
        return is_free or path == REACHES_THE_NETWORK
    return imported not in PACKAGES or imported in PACKAGES[package][1]


def test_imports_point_one_way() -> None:
    assert not [
        f"{path} imports {name}"
        for path in _sources(*PACKAGES)
        for name in _imports(path)
        if not _is_allowed(path, name)
    ]


def test_no_circle_of_imports_among_folders() -> None:
    """A package's own root is left out: its files use the folders, and folders use its data."""
    graph: dict[Path, set[Path]] = {}
    for path in _sources(*PACKAGES):
        for name in _imports(path):
            module = Path(*name.split("."))
            folder = module if (ROOT / module).is_dir() else module.parent
            is_room = len(folder.parts) > 1 and folder.parts[0] in PACKAGES
            if is_room and len(path.parent.parts) > 1 and folder != path.parent:
                graph.setdefault(path.parent, set()).add(folder)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(map(str, error.args[1])))


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _private_names(path: Path) -> Iterator[str]:
    """Private names of other modules that a file uses; a C kernel belongs to its folder."""
    tree = _tree(path)
    kernels = {kernel.stem for kernel in (ROOT / path.parent).glob("*.c")}
    names = [a for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names]
    yield from {a.name for a in names if _is_private(a.name)} - kernels
    modules = {alias.asname or alias.name for alias in names if alias.name.islower()}
    yield from (
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id in modules - kernels and _is_private(node.attr)
    )


def test_private_names_stay_in_their_file() -> None:
    paths = _sources(*PACKAGES, "bench", "examples")
    assert not [f"{path}: {name}" for path in paths for name in _private_names(path)]


def test_oracles_import_nothing_of_ours() -> None:
    ours = {*PACKAGES, "torch", "torchvision"}
    paths = _sources("tests/oracles")
    assert not [p for p in paths if {name.split(".")[0] for name in _imports(p)} & ours]


def test_a_file_holds_one_idea() -> None:
    lengths = {
        path: len((ROOT / path).read_text("utf-8").splitlines())
        for path in _sources(*PACKAGES, "bench", "examples", "tests")
    }
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_LINES}


def test_a_package_has_few_files_at_its_root() -> None:
    counts = {name: len(list((ROOT / name).glob("*.py"))) for name in PACKAGES}
    assert not {name: count for name, count in counts.items() if count > PACKAGES[name][0]}


def test_the_document_has_the_folders_own_descriptions() -> None:
    """`docs/architecture.md` between its marks; `REWRITE=1` writes it."""
    text = DOCUMENT.read_text("utf-8")
    head, _, rest = text.partition(BEGIN)
    expected = "".join([head, BEGIN, *_folder_sections(), END, rest.partition(END)[2]])
    if os.environ.get("REWRITE"):
        DOCUMENT.write_text(expected, "utf-8")
    assert text == expected, "REWRITE=1 pytest tests/test_architecture.py"


def _folder_sections() -> Iterator[str]:
    for path in _sources(*PACKAGES):
        if path.name == "__init__.py":
            text = ast.get_docstring(_tree(path)) or ""
            text = re.sub(r"(?<=\n)`?([\w/]+)`?: ", r"- `\1`: ", text)
            yield f"### {path.parent}/\n\n{text}\n\n"


def test_folder_descriptions_name_every_file() -> None:
    wrong = []
    for path in _sources(*PACKAGES):
        if path.name == "__init__.py":
            text = ast.get_docstring(_tree(path)) or ""
            named = set(re.findall(r"^`?([a-z_]\w*)`?: ", text, re.M))
            files = {p.stem for p in (ROOT / path.parent).glob("*.py")} - {"__init__"}
            wrong += [f"{path.parent}: {name}" for name in named ^ files]
    assert not wrong


def test_every_command_explains_itself_and_is_in_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for verb, (name, _) in COMMANDS.items():
        with pytest.raises(SystemExit) as left:
            importlib.import_module(name).main(["--help"])
        assert left.value.code == 0
        assert f"maskport {verb}" in capsys.readouterr().out
    with_main = {
        ".".join(path.with_suffix("").parts)
        for path in _sources(*PACKAGES)
        if "\ndef main(argv" in (ROOT / path).read_text("utf-8")
    }
    assert with_main == {name for name, _ in COMMANDS.values()}


def _loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_embedding_loads_numpy_and_pillow_only() -> None:
    modules = "maskport, runtime.predictor, runtime.predict, runtime.compare.attribution"
    assert not _loaded_by(f"import {modules}") & HEAVY


def test_export_help_needs_no_torch() -> None:
    assert "torch" not in _loaded_by("import export.onnx")
