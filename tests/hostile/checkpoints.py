"""Every hostile checkpoint by number, loaded in a child with limits."""

from __future__ import annotations

import struct
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from model.errors import MaskportError
from tests.hostile.children import run_cases, serve

MODULE = "tests.hostile.checkpoints"
REFUSED, ESCAPED, WRONG = "refused", "escaped", "wrong"
_HEADER_BYTES = 100_000_001  # the cap of the safetensors library, and one


def run(cases: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Outcomes, in children of 10 s and 2 GB each."""
    yield from run_cases(MODULE, [], cases)


def kinds() -> list[tuple[str, str]]:
    """Suffix and name of every hostile file; imports torch, NumPy and h5py."""
    from tests.hostile import hdf5
    from tests.hostile.canary import HOSTILE, HOSTILE_SAFETENSORS
    from tests.hostile.pickles import PICKLES

    tables = {
        ".pth": HOSTILE,
        ".safetensors": [*HOSTILE_SAFETENSORS, "header-of-100-MB"],
        ".pkl": PICKLES,
        ".h5": [*hdf5.REPLACED, *hdf5.WHOLE],
    }
    return [(suffix, name) for suffix, names in tables.items() for name in names]


def make(suffix: str, kind: str, path: Path, canary: Path) -> None:
    """Write one; its code, if it has any, would touch `canary`."""
    from tests.hostile import hdf5
    from tests.hostile.canary import HOSTILE_SAFETENSORS
    from tests.hostile.canary import make as make_pth
    from tests.hostile.pickles import PICKLES

    if kind == "header-of-100-MB":
        with path.open("wb") as file:
            file.write(struct.pack("<Q", _HEADER_BYTES) + b"{")
            file.truncate(_HEADER_BYTES + 8)
    elif suffix == ".pth":
        make_pth(kind, path, canary)
    elif suffix == ".h5":
        hdf5.make(kind, path)
    else:
        path.write_bytes(
            HOSTILE_SAFETENSORS[kind] if suffix == ".safetensors" else PICKLES[kind](canary)
        )


def _judge(_: Sequence[str]) -> Callable[[int], str]:
    from model.checkpoint import load

    known = kinds()
    warnings.simplefilter("ignore")

    def case(number: int) -> str:
        suffix, kind = known[number]
        with tempfile.TemporaryDirectory() as folder:
            path, canary = Path(folder) / f"weights{suffix}", Path(folder) / "canary"
            make(suffix, kind, path, canary)
            before = sorted(Path(folder).iterdir())
            outcome = _loaded(lambda: load(path))
            if canary.exists() or sorted(Path(folder).iterdir()) != before:
                outcome = f"{WRONG}: the canary was touched"
        return outcome if outcome == REFUSED else f"{outcome} ({suffix} {kind})"

    return case


def _loaded(load: Callable[[], object]) -> str:
    try:
        load()
    except MaskportError:
        return REFUSED
    except Exception as error:
        return f"{ESCAPED}: {type(error).__name__}: {error}"
    return f"{WRONG}: it was read"


if __name__ == "__main__":
    serve(sys.argv[1:], _judge, beyond_libraries=True)
