"""The data types of a built engine, from its own inspector; needs the GPU."""

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

# The inspector's spellings: "Row major linear FP32", "… FP16 format …", "Int8 NC/32HW32 format",
# "Half".
_TYPES = {
    "float32": re.compile(r"\b(?:FP32|Float)\b"),
    "float16": re.compile(r"\b(?:FP16|Half)\b"),
    "bfloat16": re.compile(r"\b(?:BF16|BFloat16)\b", re.IGNORECASE),
    "int8": re.compile(r"\bint8\b", re.IGNORECASE),
    "float8": re.compile(r"\b(?:FP8|Float8\w*)\b", re.IGNORECASE),
}
_DATATYPE = re.compile(r'"Format/Datatype"\s*:\s*"([^"]*)"')


def inspect_engine(library: Library, plan: bytes) -> str:
    """The inspector's JSON text about every layer of a new engine.

    Raises:
        EngineBuildError: the library cannot open the engine.
    """
    if not TYPE_CHECKING:
        trt = library.module
    messages = Messages()
    runtime: trt.Runtime = trt.Runtime(forwarding_logger(library.module, messages.add))
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise messages.failure(f"{library.name} cannot open the engine that it built")
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def datatypes(inspected: str) -> dict[str, int]:
    """Type → number of tensors between layers."""
    counts: Counter[str] = Counter()
    for text in _DATATYPE.findall(inspected):
        counts.update(name for name, pattern in _TYPES.items() if pattern.search(text))
    return dict(counts)


def check_engine_precision(precision: str, types: dict[str, int]) -> None:
    """Reject an engine that computes in another type than its manifest declares.

    Raises:
        EngineBuildError: the expected type is missing from the engine, or most of an FP32 engine
            is in half precision (NMS multiplies 0/1 matrices in half at every precision).
    """
    if not types:  # the inspector reported none
        return
    names = {"fp16": "float16", "bf16": "bfloat16", "int8": "int8", "fp8": "float8"}
    expected = names.get(precision.split("+")[0], "float32")
    counts = ", ".join(f"{count} {dtype}" for dtype, count in sorted(types.items()))
    halves = types.get("float16", 0) + types.get("bfloat16", 0)
    if types.get(expected, 0) == 0 or (expected == "float32" and halves > types["float32"]):
        raise EngineBuildError(
            f"precision {precision}: expected {expected}, the built engine computes in {counts}; "
            "report this with the library's version"
        )
