"""Where a network runs: the CPU, or one of the GPUs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

from model.errors import UsageError


@dataclass(frozen=True, slots=True)
class Device:
    """A processor: "cpu", or a CUDA GPU by its index."""

    kind: Literal["cpu", "cuda"]
    index: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "cpu", "cuda" or "cuda:1".

        Raises:
            UsageError: anything else.
        """
        if text == "cpu":
            return cls("cpu")
        found = re.fullmatch(r"cuda(?::(\d{1,3}))?", text)
        if found is None:
            raise UsageError(f"device: expected cpu, cuda or cuda:N, got '{text}'")
        return cls("cuda", int(found[1] or 0))

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"
