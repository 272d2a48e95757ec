"""Ids as whole numbers or strings, and references to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runtime.annotations.values import FLOAT_WHOLE_LIMIT

Id = int | str
_DECIMAL = re.compile(r"\s*(-?\d{1,18})(\.0*)?\s*", re.ASCII)


def id_of(value: object) -> Id | None:
    """An id: a string, an integer, or a float that is one, as pandas writes; None for all else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        # Larger ones have lost digits.
        is_whole = value.is_integer() and abs(value) < FLOAT_WHOLE_LIMIT
        return int(value) if is_whole else None
    return value if isinstance(value, int | str) and value != "" else None


def number_of(one: Id) -> int | None:
    """The number of an id that is an integer or a string of one, like "7" or "000007"."""
    if isinstance(one, int):
        return one
    decimal = _DECIMAL.fullmatch(one)
    return int(decimal[1]) if decimal else None


@dataclass(frozen=True, slots=True)
class IdIndex:
    """Finds the id that a reference means: itself, else the only id with the same number."""

    ids: frozenset[Id]
    by_number: Mapping[int, Id | None]

    @staticmethod
    def of(ids: Iterable[Id]) -> IdIndex:
        """An index of these ids."""
        known = frozenset(ids)
        by_number: dict[int, Id | None] = {}
        for one in known:
            number = number_of(one)
            if number is not None:
                by_number[number] = None if number in by_number else one
        return IdIndex(known, by_number)

    def find(self, reference: Id) -> Id | None:
        """The id, or None."""
        if reference in self.ids:
            return reference
        number = number_of(reference)
        return None if number is None else self.by_number.get(number)


def numbered(ids: Iterable[Id]) -> dict[Id, int]:
    """A whole number for every id, in the order of the ids, since evaluators take no strings.

    The ids' own numbers if these are distinct and not negative, else 1, 2, … . The order matters:
    it decides ties of scores among photos.
    """
    ordered = sorted(set(ids), key=lambda one: (isinstance(one, str), one))
    own = [number_of(one) for one in ordered]
    numbers = [one for one in own if one is not None and 0 <= one < FLOAT_WHOLE_LIMIT]
    if len(set(numbers)) == len(ordered):
        return dict(zip(ordered, numbers, strict=True))
    return {one: number for number, one in enumerate(ordered, start=1)}
