"""Progress of a soak, in a file that is replaced as a whole."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model.errors import UsageError
from runtime.files import atomic_path


@dataclass(slots=True)
class Progress:
    """Of one part: cases done, seconds spent, outcomes."""

    total: int
    done: int = 0
    seconds: float = 0.0
    outcomes: dict[str, Any] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every case was run."""
        return self.done >= self.total

    def add(self, count: int, seconds: float, outcomes: Mapping[str, Any]) -> None:
        """Count a chunk; equal outcomes add up."""
        self.done += count
        self.seconds += seconds
        for name, value in outcomes.items():
            before = self.outcomes.get(name)
            self.outcomes[name] = value if before is None else before + value


@dataclass(slots=True)
class State:
    """Of all parts, on one commit; `base` is the seed that damaged files are drawn from."""

    path: Path
    commit: str
    base: int = field(default_factory=lambda: secrets.randbits(32))
    parts: dict[str, Progress] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, commit: str) -> State:
        """Read what an earlier run wrote.

        Raises:
            UsageError: no such file, damaged, or of another commit.
        """
        try:
            data = json.loads(path.read_text("utf-8"))
            parts = {name: Progress(**part) for name, part in data["parts"].items()}
            written_on, base = str(data["commit"]), int(data["base"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"--resume: {path} is no state of a soak ({error}); leave --resume out"
            ) from error
        if written_on != commit:
            raise UsageError(
                f"--resume: {path} is of commit {written_on}, this is {commit}; leave --resume out"
            )
        return cls(path, commit, base, parts)

    def progress(self, name: str, total: int) -> Progress:
        """Of one part; begun anew when it had another total."""
        progress = self.parts.get(name)
        if progress is None or progress.total != total:
            progress = self.parts[name] = Progress(total)
        return progress

    def save(self) -> None:
        """Write it, or leave what was there."""
        parts = {name: asdict(progress) for name, progress in self.parts.items()}
        with atomic_path(self.path) as temporary:
            data = {"commit": self.commit, "base": self.base, "parts": parts}
            temporary.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
