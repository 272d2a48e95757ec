"""Generated stubs: mypy accepts a correct program and reports each mistake."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.typing import tensorrt_stubs
from tests.typing.tensorrt_stubs import UnavailableError, dummy_libraries, main, stubs_of_version

SOUND = """
import {module} as trt


class Monitor(trt.IProgressMonitor):
    def __init__(self) -> None:
        trt.IProgressMonitor.__init__(self)

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        print(phase_name, parent_phase, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        return bool(phase_name) and step >= 0


class Log(trt.ILogger):
    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        if severity <= trt.Logger.WARNING:
            print(msg)


def build(path: str, cache: bytes) -> bytes:
    builder = trt.Builder(Log())
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.WARNING))
    if not parser.parse_from_file(path):
        raise ValueError(parser.get_error(parser.num_errors - 1).node_name())
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.STRICT_NANS)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 30)
    config.set_timing_cache(config.create_timing_cache(cache), ignore_mismatch=False)
    config.progress_monitor = Monitor()
    profile = builder.create_optimization_profile()
    profile.set_shape("images", (1, 3, 8, 8), [2, 3, 8, 8], trt.Dims([4, 3, 8, 8]))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ValueError("no plan")
    return bytes(plan) + bytes(memoryview(config.get_timing_cache().serialize()))


def run(plan: bytes, stream: int, address: int) -> dict[str, tuple[int, ...]]:
    engine = trt.Runtime(Log()).deserialize_cuda_engine(plan)
    if engine is None:
        raise ValueError("no engine")
    context = engine.create_execution_context()
    shapes: dict[str, tuple[int, ...]] = dict()
    for i in range(engine.num_io_tensors):
        name: str = engine.get_tensor_name(i)
        dtype: trt.DataType = engine.get_tensor_dtype(name)
        if dtype not in (trt.float32, trt.DataType.HALF, trt.bool):
            raise ValueError(dtype.name)
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            low, best, high = engine.get_tensor_profile_shape(name, 0)
            context.set_input_shape(name, tuple(high))
            print(low[0], len(best))
        context.set_tensor_address(name, address)
        shapes[name] = tuple(engine.get_tensor_shape(name))
    if not context.execute_async_v3(stream_handle=stream):
        raise ValueError("failed")
    return shapes
"""
# Each comment is the code of the error that mypy must report there.
MISTAKEN = """
import {module} as trt


def build(builder: trt.Builder, config: trt.IBuilderConfig) -> None:
    network = builder.create_network(0)
    builder.build_engine(network, config)  # attr-defined
    network.add_fully_connected()  # union-attr
    config.max_workspace_size = 1 << 30  # attr-defined
    config.progress_monitor = print  # assignment
    config.set_flag(5)  # arg-type
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)  # call-arg
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 0.5)  # arg-type
    config.set_memory_pool_limit(pool=trt.MemoryPoolType.WORKSPACE, size=1)  # call-arg
    builder.create_network(0, 1)  # call-arg
    builder.max_DLA_batch_size = 3  # misc
    trt.OnnxParser(network, trt.Logger()).parse_from_file(b"x")  # arg-type
    trt.BuilderFlag.FP17  # attr-defined
    trt.BuilderFlag.TF32 = trt.BuilderFlag.REFIT  # misc
    trt.nothing  # attr-defined


def run(engine: trt.ICudaEngine, plan: bytes) -> None:
    engine.num_bindings  # attr-defined
    engine.name = "n"  # misc
    engine.get_tensor_name("x")  # arg-type
    context = engine.create_execution_context()
    context.execute_async_v2([1], 2)  # union-attr
    context.set_input_shape("x", 3)  # call-overload
    context.set_tensor_address("x")  # call-arg
    loaded = trt.Runtime(trt.Logger()).deserialize_cuda_engine(plan)
    loaded.num_io_tensors = 3  # misc
    loaded.get_tensor_shape()  # call-arg


class Monitor(trt.IProgressMonitor):
    def phase_start(self, phase_name: str) -> None:  # override
        print(phase_name)
"""
NO_HALF_FLAG = "    trt.BuilderFlag.FP16  # attr-defined\n"


def mypy(stubs: Path, *files: Path) -> list[str]:
    """The errors, as "file name:line: [code]"; the stubs on the path are checked too."""
    options = ["--strict", "--warn-unreachable", "--config-file=", "--no-error-summary"]
    cache = ["--cache-dir", str(stubs.parent / "cache"), "--python-version", "3.11"]
    command = [sys.executable, "-m", "mypy", *options, *cache, *map(str, files)]
    environment = {**os.environ, "MYPYPATH": str(stubs)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    matches = (
        re.match(r"(.*):(\d+): error: .*\[([a-z-]+)\]$", t) for t in done.stdout.splitlines()
    )
    return [f"{Path(m[1]).name}:{m[2]}: [{m[3]}]" for m in matches if m]


def marked(path: Path) -> Iterator[str]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        code = re.search(r"  # ([a-z-]+)$", line)
        if code:
            yield f"{path.name}:{number}: [{code[1]}]"


def check(stub: Path, folder: Path, mistaken: str) -> None:
    """mypy must accept the stub and the sound program, and find the marked mistakes, no others."""
    sound, wrong = folder / "sound.py", folder / "mistaken.py"
    sound.write_text(SOUND.replace("{module}", stub.parent.name), "utf-8")
    wrong.write_text(mistaken.replace("{module}", stub.parent.name), "utf-8")
    assert mypy(stub.parents[1], stub, sound, wrong) == list(marked(wrong))


def with_flag_line() -> str:
    head, mark, tail = MISTAKEN.partition("    trt.nothing")
    return head + NO_HALF_FLAG + mark + tail


@pytest.mark.slow
@pytest.mark.parametrize(("version", "has_fp16"), [("10.16.1.11", True), ("11.4.0.106", False)])
def test_tensorrt(version: str, has_fp16: bool, tmp_path: Path) -> None:
    try:
        stub = stubs_of_version(version, tmp_path / "stubs")
    except UnavailableError as error:
        pytest.skip(str(error))
    check(stub, tmp_path, MISTAKEN if has_fp16 else with_flag_line())


@pytest.mark.slow
def test_tensorrt_rtx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx", exc_type=ImportError)
    assert main(["--module", "tensorrt_rtx", "--out", str(tmp_path / "stubs")]) == 0
    check(Path(capsys.readouterr().out.strip()), tmp_path, with_flag_line())


def test_no_such_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--module", "no_such_bindings", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: no_such_bindings cannot be imported")
    assert not list(tmp_path.iterdir())


def test_no_wheel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = (sys.executable, "-c", "import sys; sys.exit('a\\nERROR: none for 0.0')")
    monkeypatch.setattr(tensorrt_stubs, "PIP", refuse)
    assert main(["--version", "0.0", "--out", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: cannot download tensorrt_cu13_bindings==0.0: ")
    assert message.endswith("none for 0.0\n")
    assert message.count("\n") == 1


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="need the program cc"):
        dummy_libraries(tmp_path / "binding.so", tmp_path)


@pytest.mark.skipif(not (shutil.which("cc") and shutil.which("readelf")), reason="needs gcc")
def test_dummy_libraries_let_a_binding_load(tmp_path: Path) -> None:
    real, binding = tmp_path / "libnvfake.so.9", tmp_path / "binding.so"
    source = "int createNothing_INTERNAL(void); int f(void) { return createNothing_INTERNAL(); }"
    build = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-Wl,--no-as-needed", "-o"]
    named = [*build, str(real), f"-Wl,-soname,{real.name}"]
    subprocess.run(named, input="int other;", text=True, check=True)
    linked = [*build, str(binding), "-x", "none", str(real)]
    subprocess.run(linked, input=source, text=True, check=True)
    real.unlink()

    assert dummy_libraries(binding, tmp_path) == [real]
    load = f"import ctypes, os; ctypes.CDLL({str(binding)!r}, os.RTLD_NOW)"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", load], env=environment, check=True)
    real.unlink()
    failed = subprocess.run([sys.executable, "-c", load], env=environment, capture_output=True)
    assert b"libnvfake.so.9" in failed.stderr
