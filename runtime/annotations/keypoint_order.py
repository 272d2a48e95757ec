"""Keypoints in the model's order, by the names that the file's categories list."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.annotations.values import Json, shown

_NUMBERS = 3


def in_model_order(
    rows: Sequence[Json], names: Sequence[tuple[str, ...]], model_names: Sequence[str]
) -> tuple[list[Json], list[str]]:
    """Rows with their keypoints in the model's order, and a line for each oddity.

    Args:
        rows: clean annotations.
        names: of the keypoints of each row, as its category lists them; may be empty.
        model_names: of the model's keypoints.
    """
    ours = [_key(name) for name in model_names]
    is_named = [*model_names] != [f"keypoint_{i}" for i in range(len(model_names))]
    orders = {one: _order([_key(name) for name in one], ours) for one in set(names)}
    ordered, moved, others = [], 0, []
    for row, own in zip(rows, names, strict=True):
        order, keypoints = orders[own], row.get("keypoints", ())
        is_comparable = is_named and len(keypoints) == _NUMBERS * len(ours) == _NUMBERS * len(own)
        if is_comparable and order is None:
            others.append(own)
        elif is_comparable and order != sorted(order or ()):
            starts = [_NUMBERS * index for index in order or ()]
            moved += 1
            row = {**row, "keypoints": [v for at in starts for v in keypoints[at : at + _NUMBERS]]}
        ordered.append(row)
    lines = []
    if moved:
        lines.append(
            f"keypoints of {moved} of {len(rows)} objects are matched by name, since the model has "
            "another order"
        )
    if others:
        lines.append(
            f"keypoints of {len(others)} of {len(rows)} objects have other names than the model's "
            f"({shown([*others[0]])}, the model's {shown([*model_names])}); matched in this order"
        )
    return ordered, lines


def _order(names: Sequence[str], ours: Sequence[str]) -> list[int] | None:
    """The index in `names` of each of `ours`; None if the names are others."""
    if sorted(names) != sorted(ours) or len(set(ours)) < len(ours):
        return None
    return [names.index(name) for name in ours]


def _key(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))
