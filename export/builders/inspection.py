"""What types a built engine really computes in, as its own inspector says; needs the GPU."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from export.builders.library import Library
from export.builders.messages import Messages
from model.errors import EngineBuildError
from runtime.sessions.tensorrt_library import forwarding_logger

if TYPE_CHECKING:
    import tensorrt as trt

# The inspector writes "Row major linear FP32", "… FP16 format …", "Int8 NC/32HW32 format", "Half".
_TYPES = {
    "float32": re.compile(r"\b(?:FP32|Float)\b"),
    "float16": re.compile(r"\b(?:FP16|Half)\b"),
    "bfloat16": re.compile(r"\b(?:BF16|BFloat16)\b", re.IGNORECASE),
    "int8": re.compile(r"\bint8\b", re.IGNORECASE),
    "float8": re.compile(r"\b(?:FP8|Float8\w*)\b", re.IGNORECASE),
}
_DATATYPE = re.compile(r'"Format/Datatype"\s*:\s*"([^"]*)"')


def inspect_engine(library: Library, plan: bytes) -> str:
    """The inspector's JSON text about every layer of an engine that was just built here.

    Raises:
        EngineBuildError: the library does not open what it has just built.
    """
    if not TYPE_CHECKING:
        trt = library.module
    messages = Messages()
    runtime: trt.Runtime = trt.Runtime(forwarding_logger(library.module, messages.add))
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise messages.failure(f"{library.name} does not open the engine that it built")
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def datatypes(inspected: str) -> dict[str, int]:
    """Type → how many tensors between layers have it."""
    found: Counter[str] = Counter()
    for text in _DATATYPE.findall(inspected):
        found.update(name for name, pattern in _TYPES.items() if pattern.search(text))
    return dict(found)


def check_engine_precision(precision: str, found: dict[str, int]) -> None:
    """Refuse an engine that computes in another type than its file promises.

    Raises:
        EngineBuildError: the promised type is nowhere in the engine, or half precision is most of
            an FP32 engine (NMS multiplies 0/1 matrices in half at every precision).
    """
    if not found:  # an inspector that tells no types proves nothing
        return
    promised = {"fp16": "float16", "bf16": "bfloat16", "int8": "int8", "fp8": "float8"}
    wanted = promised.get(precision.split("+")[0], "float32")
    seen = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
    halves = found.get("float16", 0) + found.get("bfloat16", 0)
    if found.get(wanted, 0) == 0 or (wanted == "float32" and halves > found["float32"]):
        raise EngineBuildError(
            f"precision {precision}: the built engine computes in {seen}; expected {wanted}; "
            "report this with the library's version"
        )
