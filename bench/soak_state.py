"""How far a soak has come, in a file that is whole at any time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model.errors import UsageError
from runtime.files import atomic_path


@dataclass(slots=True)
class Progress:
    """Of one part: cases done, seconds spent, and what came out."""

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
    """Of all parts, on one commit."""

    path: Path
    commit: str
    parts: dict[str, Progress] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, commit: str) -> State:
        """What an earlier run wrote there.

        Raises:
            UsageError: no such file, damaged, or of another commit.
        """
        try:
            data = json.loads(path.read_text("utf-8"))
            parts = {name: Progress(**part) for name, part in data["parts"].items()}
            written_on = str(data["commit"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"--resume: {path} is no state of a soak ({error}); leave --resume out"
            ) from error
        if written_on != commit:
            raise UsageError(
                f"--resume: {path} is of commit {written_on}, this is {commit}; leave --resume out"
            )
        return cls(path, commit, parts)

    def progress(self, name: str, total: int) -> Progress:
        """Of one part; begun anew when it had another total."""
        found = self.parts.get(name)
        if found is None or found.total != total:
            found = self.parts[name] = Progress(total)
        return found

    def save(self) -> None:
        """Write it, or leave what was there."""
        parts = {name: asdict(progress) for name, progress in self.parts.items()}
        with atomic_path(self.path) as temporary:
            content = json.dumps({"commit": self.commit, "parts": parts}, indent=1)
            temporary.write_text(content + "\n", "utf-8")
