"""What a calibration table is valid for, and what to say of one that is for something else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calib.options import QuantizeOptions
from model.errors import ArtifactError
from runtime.artifacts.metadata import Artifact

_OTHERS = (
    ("model_sha256", "model"),
    ("preprocess", "preprocessing"),
    ("method", "method"),
)
# What stands beside the preprocessing in the same field, as people call it.
_TITLES = {
    "canvas": "canvas (--size)",
    "batch": "batch (--batch)",
}


@dataclass(frozen=True, slots=True)
class TableKey:
    """What a table is valid for."""

    model_sha256: str
    preprocess: str
    method: str

    @classmethod
    def of(cls, artifact: Artifact, model_sha256: str, options: QuantizeOptions) -> TableKey:
        """The key of a file's tables by that method."""
        manifest = artifact.manifest
        how = asdict(artifact.spec.preprocess)
        how |= {"canvas": [manifest.height, manifest.width], "batch": manifest.batch_bounds[0]}
        return cls(model_sha256, json.dumps(how, sort_keys=True), options.method)


def require_key(path: Path, found: object, wanted: TableKey) -> None:
    """Refuse a table that is valid for something else, and name what differs.

    Args:
        path: the table, for messages.
        found: its key, out of the file.
        wanted: what it should be valid for.

    Raises:
        ArtifactError: it is not.
    """
    have_all = found if isinstance(found, dict) else {}
    for name, what in _OTHERS:
        have, want = have_all.get(name), getattr(wanted, name)
        if have == want:
            continue
        told = _fields_that_differ(have, want) if name == "preprocess" else None
        raise ArtifactError(
            f"{path}: a calibration table of another {told or _in_short(what, str(have), want)}; "
            "delete it or name another with --table"
        )


def _fields_that_differ(have: object, want: str) -> str | None:
    """The first of canvas and batch that differs; None where other fields differ too."""
    one, other = _fields(have), _fields(want)
    names = [name for name in (*_TITLES, *other, *one) if one.get(name) != other.get(name)]
    if not one or not names or any(name not in _TITLES for name in names):
        return None
    name = names[0]
    return f"{_TITLES[name]}: {str(one.get(name))[:40]}, expected {other.get(name)}"


def _fields(text: object) -> Mapping[str, Any]:
    with suppress(ValueError, RecursionError):
        document = json.loads(text) if isinstance(text, str) else None
        return document if isinstance(document, dict) else {}
    return {}


def _in_short(what: str, have: str, want: str) -> str:
    apart = _where_they_part(have, want)
    return f"{what} (…{have[apart:][:40]}, expected …{want[apart:][:40]})"


def _where_they_part(one: str, other: str) -> int:
    """A little before the first character that differs; the start, for short texts."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    return max(same - 20, 0)
