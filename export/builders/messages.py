"""Messages of the library: collected during a build, then reduced to one error."""

from __future__ import annotations

import re
from typing import Any

from model.errors import EngineBuildError

_REEXPORT = (
    "export the graph for TensorRT: "
    "python -m export.onnx WEIGHTS --target tensorrt-rtx --size 800x1344"
)
_REMEDIES: tuple[tuple[str, str], ...] = (
    (r"K exceeds the maximum", "export with fewer --candidates (at most 3840)"),
    (r"NonMaxSuppression|has no runners", _REEXPORT),
    (r"RoiAlign|ROIAlign|NonZero", _REEXPORT),
    (r"[Pp]lugin", f"the operator needs a plugin; {_REEXPORT}"),
    (r"MODEL_DESERIALIZE_FAILED|Failed to parse the ONNX", "the file is damaged; export it again"),
    (r"out of memory|OutOfMemory|insufficient (?:device )?memory", "lower --batch or --workspace"),
    (r"CUDA driver version is insufficient|no CUDA-capable device", "run it on the GPU machine"),
)
_NODE = re.compile(r"(?:ITopKLayer|I[A-Za-z]+Layer) ([^\s:]+):|failed\. (\S+) has no runners")


class Messages:
    """Warnings and errors in order of arrival, without duplicates."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.errors: list[str] = []

    def add(self, text: str, is_error: bool) -> None:
        """Record a message of the library."""
        line = " ".join(text.split())
        recorded = self.errors if is_error else self.warnings
        if line not in recorded:
            recorded.append(line)

    def failure(self, where: str) -> EngineBuildError:
        """An error from the first recorded one, the cause of the others."""
        message = self.errors[0] if self.errors else "the library gave no reason"
        match = _NODE.search(message)
        node = next((n for n in match.groups() if n), "") if match else ""
        at = f" at node '{node}'" if node else ""
        return EngineBuildError(f"{where}{at}: {_shorten(message)}{_remedy(message)}")


def parse_failure(where: str, error: Any) -> EngineBuildError:
    """An error from the parser's, which names the node."""
    operator, name = str(error.node_operator() or ""), str(error.node_name() or "")
    at = f" at {operator} node '{name}'" if operator else ""
    message = " ".join(str(error.desc()).split())
    remedy = _remedy(f"{operator} {message}")
    return EngineBuildError(f"{where}{at}: {_shorten(message)}{remedy}")


def _remedy(message: str) -> str:
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, message):
            return f"; {remedy}"
    return ""


def _shorten(message: str) -> str:
    """Drop the library's source lines and error codes."""
    text = re.sub(r"\(?[\[(]?\S+\.cpp(?:::|:)\S*\]?\)?", "", message)
    text = re.sub(r"\bIn \w+ at .*$", "", text)
    text = re.sub(r"^.*?Error Code \d+: ", "", text)
    return " ".join(text.split())[:300].rstrip(" (;:")
