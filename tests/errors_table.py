"""docs/errors.md: every error that the runtime makes, and the test that provokes it.

`python -m tests.errors_table [found.jsonl]` writes the table anew from the code. Tests are kept
from the document; for new messages they are taken from a record of `tests.provoked`.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from tests.error_sites import ROOT, Site, remedy, sites

DOCUMENT = ROOT / "docs" / "errors.md"
BEGIN, END = "<!-- the table: python -m tests.errors_table -->\n", "<!-- end of the table -->\n"
Key = tuple[str, str, str]
STATUS = {"UsageError": 2}  # all others end a command with 1
MISSING = "**none**"

# What to do, where the message itself does not say.
REMEDIES: Mapping[str, str] = {
    "no canvas to put a photo on": "open at least one artifact",
    "device cuda:…: this machine has … GPUs": "name a GPU that is there, from cuda:0",
    "…: … does not give its memory: …": "copy the frame into an array of PyTorch or CuPy",
    "…: element type …/… of DLPack is not taken": "give float32",
    "paste: the model has no mask head": "use the boxes",
    "frame …: …": "as the rest of the message says",
    "device …: … is an engine, which runs on a GPU": "say cuda, or leave device out",
    "…: no such file": "check the path",
    "…: cannot be read (…)": "check the rights and the disk",
    "cannot write …: …": "name a folder that exists, is writable and has room",
    "cannot read …: …": "check the rights and the disk",
    "…: not a readable JSON file (…)": "give COCO's instances file",
    "…: the model has no class '…' (…)": "take one of the names in the brackets",
    "TensorRT does not take an address for '…'": "build the engine again",
    "TensorRT refuses shape … for '…'": "build the engine for that shape",
    "TensorRT could not start the network": "look at the GPU with nvidia-smi",
    "…: ONNX Runtime failed (…)": "the brackets say why; of memory: a smaller batch or photo",
    "…: … refuses it (…)": "build the engine again with the installed version",
    "runtime_cache: only TensorRT-RTX compiles kernels when it runs": "leave it out",
    "stream: the session is on …, which has none": "leave it out",
    "…: cannot read the list (…)": "check the path and the rights",
    "…: cannot be listed (…)": "check the rights of the folder",
    "…: not an image of a known kind (…)": "convert it to one of those in the brackets",
    "…: damaged or truncated image (…)": "get the file again",
    "…: a palette image without its palette": "get the file again",
    "-: standard input can be read only once": "give it once",
    "…: no file can have this name": "check the name",
    "…: holds no frame": "get the file again",
    "…: frame …: larger than the memory": "scale the video down",
    "…: has no pictures, only sound or other data": "give a file with a video track",
    "…: a video of a kind that this build of PyAV cannot decode": "convert it, say to H.264",
}
# Errors that no test of this suite can provoke, with the reason.
UNPROVOKED: Mapping[str, str] = {}


def rows() -> list[Site]:
    """One site per key, in the order of the code."""
    return list({site.key: site for site in sites()}.values())


def what_to_do(site: Site) -> str:
    """Out of the message, or out of `REMEDIES`."""
    return remedy(site.message) or REMEDIES.get(site.message, "")


@cache
def named() -> dict[str, frozenset[Key]]:
    """By test id, what the document names it for."""
    found: dict[str, set[Key]] = defaultdict(set)
    if DOCUMENT.is_file():
        for key, test in _documented(DOCUMENT.read_text("utf-8")):
            found[test].add(key)
    return {test: frozenset(keys) for test, keys in found.items()}


def as_markdown(tests: Mapping[Key, str]) -> str:
    """A table per module."""
    parts: list[str] = []
    module = ""
    for site in rows():
        if site.module != module:
            module = site.module
            parts.append(f"\n### {module}\n\n| message | what to do | error | status | test |\n")
            parts.append("|---|---|---|---|---|\n")
        test = tests.get(site.key) or UNPROVOKED.get(site.message) or MISSING
        shown = f"`{test}`" if "::" in test else test
        status = STATUS.get(site.kind, 1)
        cells = (_cell(site.message), _cell(what_to_do(site)), site.kind, str(status), _cell(shown))
        parts.append(f"| {' | '.join(cells)} |\n")
    return "".join([*parts, "\n"])


def merged(text: str, recorded: Mapping[Key, str] | None = None) -> str:
    """A document with the table between its marks."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    tests = {**(recorded or {}), **dict(_documented(text))}
    return f"{head}{BEGIN}{as_markdown(tests)}{END}{tail}"


def _documented(text: str) -> Iterator[tuple[Key, str]]:
    """Key and test id of every row that has one."""
    _, _, rest = text.partition(BEGIN)
    table, _, _ = rest.partition(END)
    module = ""
    for line in table.splitlines():
        if line.startswith("### "):
            module = line[4:]
        cells = [_uncell(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 5 and "::" in cells[4]:
            yield (module, cells[2], cells[0]), cells[4].strip("`")


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;").replace("\n", " ")


def _uncell(cell: str) -> str:
    return cell.strip().replace(r"\|", "|").replace("&lt;", "<")


def read_record(path: Path) -> dict[Key, str]:
    """The shortest id of a test for every key: the one that is about it, as a rule."""
    found: dict[Key, str] = {}
    for line in path.read_text("utf-8").splitlines():
        module, kind, message, test = json.loads(line)
        key = (module, kind, message)
        if "`" not in test and (key not in found or _rank(test, key) < _rank(found[key], key)):
            found[key] = test
    return found


def _rank(test: str, key: Key) -> tuple[bool, int, str]:
    """Tests of the module's own file first."""
    stem = Path(key[0]).stem
    return stem not in Path(test.partition("::")[0]).stem, len(test), test


if __name__ == "__main__":
    record = read_record(Path(sys.argv[1])) if len(sys.argv) > 1 else {}
    DOCUMENT.write_text(merged(DOCUMENT.read_text("utf-8"), record), "utf-8")
    without = [site for site in rows() if not what_to_do(site)]
    print("\n".join(f"no remedy: {site.message}" for site in without))
    unproven = re.findall(
        rf"^\| (.*?) \|.*{re.escape(MISSING)} \|$", DOCUMENT.read_text("utf-8"), re.M
    )
    print("\n".join(f"no test: {message}" for message in unproven))
