"""Make type stubs of the TensorRT Python bindings, for mypy, without a GPU and without TensorRT.

python tests/typing/tensorrt_stubs.py --version 11.4.0.106 --out DIR
python tests/typing/tensorrt_stubs.py --module tensorrt_rtx --out DIR
MYPYPATH=DIR python -m mypy --strict PROGRAM.py

The bindings have no stubs of their own, but docstrings with every signature (`pybind_stubs`).
Importing them needs TensorRT's libraries, yet only a few C functions of them, and calls none:
empty libraries that define those functions will do.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.typing.pybind_stubs import module_stub

WHEEL = "tensorrt_cu13_bindings"
BINDINGS = "tensorrt_bindings"
PIP = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")


class StubsError(Exception):
    """The stubs cannot be made; the message is one line."""


class UnavailableError(StubsError):
    """This machine lacks a tool or a module, or cannot fetch the wheel."""


def write_stub(module_name: str, package: str, out: Path) -> Path:
    """Import a module and write its stub as `out`/`package`/__init__.pyi."""
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UnavailableError(f"{module_name} cannot be imported: {error}") from error
    path = out / package / "__init__.pyi"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(module_stub(module), "utf-8")
    return path


def _run(command: Sequence[str], source: str = "", extra: Mapping[str, str] | None = None) -> str:
    environment = {**os.environ, **(extra or {})}
    done = subprocess.run(
        command, input=source, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise StubsError(f"{Path(command[0]).name}: {lines[-1].removeprefix('ERROR: ')}")
    return done.stdout


def download(version: str, folder: Path) -> Path:
    """Fetch and unpack the bindings' wheel for this Python; returns the folder to import from."""
    wanted = f"{WHEEL}=={version}"
    try:
        _run([*PIP, "--dest", str(folder), wanted])
        (wheel,) = folder.glob("*.whl")
    except (StubsError, ValueError) as error:
        raise UnavailableError(f"cannot download {wanted}: {error}") from error
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "wheel")
    return folder / "wheel"


def dummy_libraries(binding: Path, folder: Path) -> list[Path]:
    """Compile the libraries of TensorRT that `binding` needs, with all functions empty."""
    for tool in ("cc", "readelf"):
        if shutil.which(tool) is None:
            raise UnavailableError(f"dummy libraries need the program {tool}: install gcc")
    read = ["readelf", "--wide", "--dynamic", "--dyn-syms", str(binding)]
    listing = _run(read, extra={"LC_ALL": "C"})
    libraries = [folder / name for name in re.findall(r"\(NEEDED\).*\[(libnv[^\]]+)\]", listing)]
    # The C and C++ libraries' symbols have versions (name@GLIBC...), Python's begin with Py.
    undefined = re.findall(r"GLOBAL +DEFAULT +UND (\w+)$", listing, re.MULTILINE)
    names = [name for name in undefined if not re.match("_?Py", name)]
    source = "".join(f"void {name}(void) {{}}\n" for name in names)
    for library in libraries:
        _run(["cc", "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", str(library)], source)
    return libraries


def stubs_of_version(version: str, out: Path) -> Path:
    """Write the stubs of a TensorRT version, as package `tensorrt`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = download(version, folder)
        dummy_libraries(wheel / BINDINGS / "tensorrt.so", folder)
        # Another process: the loader reads LD_LIBRARY_PATH only when a program starts.
        again = [sys.executable, __file__, "--module", BINDINGS, "--package", "tensorrt"]
        paths = {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(wheel)}
        _run([*again, "--out", str(out)], extra=paths)
    return out / "tensorrt" / "__init__.pyi"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--version", help=f"TensorRT's version, one that {WHEEL} has")
    source.add_argument("--module", help="an installed module, such as tensorrt_rtx")
    parser.add_argument("--package", help="the stub's name (default: the module's)")
    parser.add_argument("--out", type=Path, required=True, help="folder to put on MYPYPATH")
    args = parser.parse_args(arguments)
    try:
        if args.version:
            path = stubs_of_version(args.version, args.out)
        else:
            path = write_stub(args.module, args.package or args.module, args.out)
    except StubsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
