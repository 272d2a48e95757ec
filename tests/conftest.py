"""Fixtures that several folders share: the demo model, the real photos. How tests are run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint, SpecOptions

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "examples" / "demo"


def pytest_configure(config: pytest.Config) -> None:
    """One thread for each library: workers of one run share the cores.

    With two, torch's bilinear resize rounds differently, by up to 5e-6.
    """
    if config.getoption("numprocesses", None):  # xdist's controller, which runs no test
        return
    import onnxruntime
    import torch

    class OneThread(onnxruntime.SessionOptions):
        """The default of every session."""

        def __init__(self) -> None:
            super().__init__()
            self.intra_op_num_threads = 1

    torch.set_num_threads(1)
    onnxruntime.SessionOptions = OneThread
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of commands that tests start


# Files of these folders export models that their tests share: one worker per file.
ONE_WORKER_PER_FILE = ("calib", "export")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for `--dist loadgroup`; skip tests that need a GPU where there is none."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        for item in items:
            path = item.path.relative_to(ROOT / "tests")
            if path.parts[0] in ONE_WORKER_PER_FILE:
                item.add_marker(pytest.mark.xdist_group(str(path)))
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real photos and weights: `MASKPORT_DATA`, else `shared/data` beside the checkout."""
    folder = Path(os.environ.get("MASKPORT_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data here: set MASKPORT_DATA, or put it in ../shared/data")
    return folder


def _demo_options() -> SpecOptions:
    from model.checkpoint import SpecOptions

    names = tuple((DEMO / "shapes.names").read_text("utf-8").split())
    return SpecOptions(short_side=320, long_side=533, names=names)


@pytest.fixture(scope="session")
def demo_checkpoint() -> Checkpoint:
    """The demo's weights at 320/533."""
    from model.checkpoint import load

    return load(DEMO / "shapes.pth", _demo_options())


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A file that the workers of one run share; whoever comes first makes it."""
    root = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        root = root.parent
    path = root / "shared" / name
    path.parent.mkdir(exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            make(path)
    return path


@pytest.fixture(scope="session")
def demo_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's weights as ONNX at 320/533, all sizes dynamic; made once (15 s)."""
    from export.onnx import export_onnx

    def make(path: Path) -> None:
        export_onnx(DEMO / "shapes.pth", path, _demo_options(), check_photo=None)

    return made_once(tmp_path_factory, "shapes.onnx", make)


@pytest.fixture(scope="session")
def demo_rtx_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's weights for TensorRT-RTX on a 320x448 canvas, 1 to 3 photos; made once."""
    from export.onnx import export_onnx
    from export.tracing import GraphShape

    def make(path: Path) -> None:
        shape = GraphShape(height=320, width=448, batch_range=(1, 2, 3))
        options = _demo_options()
        export_onnx(
            DEMO / "shapes.pth", path, options, shape, check_photo=None, target="tensorrt-rtx"
        )

    return made_once(tmp_path_factory, "shapes.rtx.onnx", make)


@pytest.fixture(scope="session")
def demo_photo() -> Path:
    """The sample photo, 640 wide and 480 high, with 18 shapes."""
    from export.onnx import SAMPLE_PHOTO

    return SAMPLE_PHOTO


@pytest.fixture(scope="session")
def demo_pixels(demo_photo: Path) -> npt.NDArray[np.uint8]:
    """The sample photo's pixels, uint8 [480, 640, 3] RGB; not to be changed."""
    from runtime.sources.photos import decode

    pixels = decode(demo_photo).copy()
    pixels.setflags(write=False)
    return pixels


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest model that detects; see `tests.reliability.tiny`."""
    from tests.reliability import tiny

    def make(folder: Path) -> None:
        folder.mkdir()
        tiny.exported(tiny.weights(folder))

    return made_once(tmp_path_factory, "tiny", make) / "tiny.safetensors"


@pytest.fixture(scope="session")
def tiny_onnx(tiny_weights: Path) -> Path:
    """The same as ONNX, of any canvas and batch; made once (10 s)."""
    return tiny_weights.with_suffix(".onnx")


@pytest.fixture(scope="session")
def tiny_rtx_onnx(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for TensorRT-RTX on a 64x96 canvas, 1 to 3 photos; made once."""
    from export.onnx import export_onnx
    from export.tracing import GraphShape

    def make(path: Path) -> None:
        shape = GraphShape(height=64, width=96, batch_range=(1, 2, 3))
        export_onnx(tiny_weights, path, shape=shape, check_photo=None, target="tensorrt-rtx")

    return made_once(tmp_path_factory, "tiny.rtx.onnx", make)
