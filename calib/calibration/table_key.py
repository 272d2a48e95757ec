"""The model, preprocessing and method that a calibration table belongs to."""

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

_TITLES = {"model_sha256": "model", "preprocess": "preprocessing", "method": "method"}
# Fields of `preprocess` that come from export options.
_EXPORT_TITLES = {"canvas": "canvas (--size)", "batch": "batch (--batch)"}


@dataclass(frozen=True, slots=True)
class TableKey:
    """What a table is valid for; `preprocess` is JSON."""

    model_sha256: str
    preprocess: str
    method: str

    @classmethod
    def of(cls, artifact: Artifact, model_sha256: str, options: QuantizeOptions) -> TableKey:
        """The key for a file and a method."""
        manifest = artifact.manifest
        fields = asdict(artifact.spec.preprocess)
        fields |= {"canvas": [manifest.height, manifest.width], "batch": manifest.batch_bounds[0]}
        return cls(model_sha256, json.dumps(fields, sort_keys=True), options.method)


def require_key(path: Path, actual: object, expected: TableKey) -> None:
    """Refuse a table that is valid for something else.

    Args:
        path: of the table, for messages.
        actual: its key, as read from the file.
        expected: the key of this run.

    Raises:
        ArtifactError: names the first field that differs.
    """
    fields = actual if isinstance(actual, dict) else {}
    for name, title in _TITLES.items():
        have, want = fields.get(name), getattr(expected, name)
        if have == want:
            continue
        difference = _export_option(have, want) if name == "preprocess" else None
        raise ArtifactError(
            f"{path}: a calibration table of another "
            f"{difference or _excerpt(title, str(have), want)}; delete it or name another with "
            "--table"
        )


def _export_option(have: object, want: str) -> str | None:
    """The first of canvas and batch that differs; None where other fields differ too."""
    one, other = _parsed(have), _parsed(want)
    names = [name for name in (*_EXPORT_TITLES, *other, *one) if one.get(name) != other.get(name)]
    if not one or not names or any(name not in _EXPORT_TITLES for name in names):
        return None
    name = names[0]
    return f"{_EXPORT_TITLES[name]}: {str(one.get(name))[:40]}, expected {other.get(name)}"


def _parsed(text: object) -> Mapping[str, Any]:
    with suppress(ValueError, RecursionError):
        document = json.loads(text) if isinstance(text, str) else None
        return document if isinstance(document, dict) else {}
    return {}


def _excerpt(title: str, have: str, want: str) -> str:
    """Both texts from a little before the first difference."""
    same = next((i for i, (a, b) in enumerate(zip(have, want, strict=False)) if a != b), 0)
    start = max(same - 20, 0)
    return f"{title} (…{have[start:][:40]}, expected …{want[start:][:40]})"
