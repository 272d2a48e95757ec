"""The code of docs/embedding.md, run block by block; `python -m tests.embedding_docs MODEL` makes
its pictures anew.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "embedding.md"
PICTURES = ROOT / "docs" / "images"
_BLOCK = re.compile(r"(?:<!-- compiled only: (.*?) -->\n)?```python\n(.*?)^```$", re.M | re.S)
_WIDTH_PX, _COLORS = 480, 255


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code; `only_compiled` says why it is not run."""

    line: int
    code: str
    only_compiled: str | None

    def compiled(self) -> Any:
        """With the document's own line numbers, for the traceback."""
        return compile("\n" * (self.line - 1) + self.code, str(DOCUMENT), "exec")


def blocks() -> Iterator[Block]:
    """In the order of the document."""
    text = DOCUMENT.read_text("utf-8")
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start(2)) + 1
        yield Block(line, match[2], match[1])


def prepare(folder: Path, model: Path, photo: Path) -> None:
    """What the code expects in its working folder."""
    shutil.copy(model, folder / "model.onnx")
    shutil.copy(photo, folder / "photo.jpg")
    (folder / "photos").mkdir()
    shutil.copy(photo, folder / "photos" / "first.jpg")
    whole = photo.read_bytes()
    (folder / "photos" / "damaged.jpg").write_bytes(whole[: len(whole) // 3])


def run(folder: Path) -> dict[str, Any]:
    """Run every block that is not marked in one namespace, inside the folder; return it."""
    namespace: dict[str, Any] = {"__name__": "embedding"}
    with chdir(folder):
        for block in blocks():
            code = block.compiled()
            if block.only_compiled is None:
                exec(code, namespace)
    return namespace


def small(path: Path) -> Image.Image:
    """A picture as the document shows it: narrow, with few colors."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    height = round(rgb.height * _WIDTH_PX / rgb.width)
    return rgb.resize((_WIDTH_PX, height), Image.Resampling.LANCZOS).quantize(_COLORS, kmeans=1)


def main() -> int:
    """Run the document and write its pictures."""
    from export.onnx import SAMPLE_PHOTO

    model = Path(os.path.abspath(sys.argv[1]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, model, SAMPLE_PHOTO)
        run(folder)
        for path in sorted(folder.glob("embedding_*.png")):
            small(path).save(PICTURES / path.name, optimize=True)
            print(PICTURES / path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
