"""A finding, and the diagnosis of a file from all its findings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.cli.console import printable

Status = Literal["ok", "n/a", "problem"]
_WIDTH = max(map(len, ("ok", "n/a", "problem")))
_LONGEST = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        status: "ok"; "n/a": not installed or not intended, which is not a fault; "problem".
        subject: what was checked.
        detail: the result; may be empty.
        remedy: what to do; may be empty.
    """

    status: Status
    subject: str
    detail: str = ""
    remedy: str = ""

    def line(self) -> str:
        """One printable line."""
        details = "; ".join(part for part in (self.detail, self.remedy) if part)
        text = f"{self.subject}: {details}" if details else self.subject
        return f"{self.status:<{_WIDTH}}  {printable(text[:_LONGEST])}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings about a file, and the next command, as its verb and arguments.

    `next` is empty where no command applies on this machine.
    """

    findings: tuple[Finding, ...]
    next: tuple[str, ...] = ()


def predict_sample(path: Path) -> tuple[str, ...]:
    """The command that runs a file on the sample photo."""
    from export.onnx import SAMPLE_PHOTO

    return ("predict", str(path), os.path.relpath(SAMPLE_PHOTO), "-o", "out")


def of_error(status: Status, subject: str, error: Exception, path: Path | None = None) -> Finding:
    """A finding from an error, whose message gives the remedy after its last semicolon.

    Args:
        status: of the finding.
        subject: what was checked.
        error: one of maskport's.
        path: removed from the start of the message.
    """
    text = " ".join(str(error).split())
    if path is not None:
        text = text.removeprefix(f"{path}: ")
    detail, _, remedy = text.rpartition("; ")
    return Finding(status, subject, detail or remedy, remedy if detail else "")
