"""What the library says: collected while it works, then one message for one cause."""

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
    (r"CUDA driver version is insufficient|no CUDA-capable device", "run it where the GPU is"),
)
_NODE = re.compile(r"(?:ITopKLayer|I[A-Za-z]+Layer) ([^\s:]+):|failed\. (\S+) has no runners")


class Messages:
    """Warnings and errors in the order they came, without repetitions."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.errors: list[str] = []

    def add(self, text: str, is_error: bool) -> None:
        """Keep a message of the library."""
        line = " ".join(text.split())
        kept = self.errors if is_error else self.warnings
        if line not in kept:
            kept.append(line)

    def failure(self, where: str) -> EngineBuildError:
        """One error out of all that was said."""
        said = self.errors[0] if self.errors else "the library gave no reason"
        match = _NODE.search(said)
        node = next((n for n in match.groups() if n), "") if match else ""
        at = f" at node '{node}'" if node else ""
        return EngineBuildError(f"{where}{at}: {_shorten(said)}{_remedy(said)}")


def parse_failure(where: str, error: Any) -> EngineBuildError:
    """One error out of the parser's own, which names the node."""
    operator, name = str(error.node_operator() or ""), str(error.node_name() or "")
    at = f" at {operator} node '{name}'" if operator else ""
    said = " ".join(str(error.desc()).split())
    return EngineBuildError(f"{where}{at}: {_shorten(said)}{_remedy(f'{operator} {said}')}")


def _remedy(said: str) -> str:
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, said):
            return f"; {remedy}"
    return ""


def _shorten(said: str) -> str:
    """Without the library's own source lines and codes."""
    text = re.sub(r"\(?[\[(]?\S+\.cpp(?:::|:)\S*\]?\)?", "", said)
    text = re.sub(r"\bIn \w+ at .*$", "", text)
    text = re.sub(r"^.*?Error Code \d+: ", "", text)
    return " ".join(text.split())[:300].rstrip(" (;:")
