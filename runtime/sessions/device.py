"""The processor that runs a network: the CPU, or one of the GPUs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

from model.errors import UsageError


@dataclass(frozen=True, slots=True)
class Device:
    """The CPU, or a CUDA GPU with its index."""

    type: Literal["cpu", "cuda"]
    index: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "cpu", "cuda" or "cuda:1".

        Raises:
            UsageError: anything else.
        """
        if text == "cpu":
            return cls("cpu")
        match = re.fullmatch(r"cuda(?::(\d{1,3}))?", text)
        if match is None:
            raise UsageError(f"device: expected cpu, cuda or cuda:N, got '{text}'")
        return cls("cuda", int(match[1] or 0))

    def __str__(self) -> str:
        return "cpu" if self.type == "cpu" else f"cuda:{self.index}"
