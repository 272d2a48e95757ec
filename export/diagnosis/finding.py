"""One thing that was looked at, and how it is; and all of them about one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.cli.console import printable

Status = Literal["ok", "absent", "problem"]
_WIDTH = max(map(len, ("ok", "absent", "problem")))
_LONGEST = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Attributes:
        status: "ok"; "absent", not here, or not meant for this, and no fault; "problem".
        subject: what was looked at.
        detail: what was found; empty where the subject says it all.
        remedy: what to do; empty where there is nothing to do.
    """

    status: Status
    subject: str
    detail: str = ""
    remedy: str = ""

    def line(self) -> str:
        """One printable line."""
        said = "; ".join(part for part in (self.detail, self.remedy) if part)
        text = f"{self.subject}: {said}" if said else self.subject
        return f"{self.status:<{_WIDTH}}  {printable(text[:_LONGEST])}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings about a file, and the verb and arguments that take it further.

    `next` is empty where no command can take it further on this machine.
    """

    findings: tuple[Finding, ...]
    next: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong and nothing is missing."""
        return all(finding.status == "ok" for finding in self.findings)


def of_error(status: Status, subject: str, error: Exception, path: Path | None = None) -> Finding:
    """A finding out of an error, whose message says what to do behind its last semicolon.

    Args:
        status: of the finding.
        subject: what was looked at.
        error: one of ours.
        path: left out where the message begins with it.
    """
    text = " ".join(str(error).split())
    if path is not None:
        text = text.removeprefix(f"{path}: ")
    detail, _, remedy = text.rpartition("; ")
    return Finding(status, subject, detail or remedy, remedy if detail else "")
