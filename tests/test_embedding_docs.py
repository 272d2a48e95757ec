"""docs/embedding.md runs as it is printed, and shows the pictures that it makes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.embedding_docs import DOCUMENT, PICTURES, blocks, prepare, run, small


def test_every_block_runs(
    demo_onnx: Path, demo_photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path, demo_onnx, demo_photo)
    namespace = run(tmp_path)
    out = capsys.readouterr().out
    assert re.search(r"^circle [01]\.\d\d at \d+, \d+ to \d+, \d+$", out, re.MULTILINE)
    assert "is below the exported 0.05; export with --score-threshold 0.001" in out
    assert re.search(r"^left out: photos/damaged\.jpg: damaged", out, re.MULTILINE)
    assert re.search(r"^photos/first\.jpg \d\d 0\.\d+", out, re.MULTILINE)
    assert re.search(r"^photo\.jpg photo \d\d", out, re.MULTILINE)
    assert "absent.jpg: no such file" in out
    assert re.search(r"^photo\.jpg: .*not", out, re.MULTILINE)
    assert 10 < len(namespace["sure"]) < len(namespace["detections"])
    assert len((tmp_path / "results.jsonl").read_text("utf-8").splitlines()) == 1
    shown = set(re.findall(r"\(images/(embedding_\w+\.png)\)", DOCUMENT.read_text("utf-8")))
    assert shown == {path.name for path in tmp_path.glob("embedding_*.png")}
    for name in sorted(shown):
        made = np.asarray(small(tmp_path / name).convert("RGB"), np.float32)
        stored = np.asarray(Image.open(PICTURES / name).convert("RGB"), np.float32)
        assert made.shape == stored.shape, name
        # Fonts and rounding may differ between libraries; a picture of something else does not.
        assert np.abs(made - stored).mean() < 6, f"{name}: python -m tests.embedding_docs"
        assert (PICTURES / name).stat().st_size < 200_000


def test_blocks_that_do_not_run_say_why_and_compile() -> None:
    marked = [block for block in blocks() if block.only_compiled is not None]
    assert [block.only_compiled for block in marked] == ["needs two more exports", "needs a GPU"]
    assert len(list(blocks())) - len(marked) >= 15
    for block in marked:
        block.compiled()


def test_every_code_block_is_run_or_compiled() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert text.count("```python") == len(list(blocks())) == text.count("```") // 2
