"""Categories match by name, else by id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.errors import UsageError
from model.spec import ClassSpec, ModelSpec
from runtime.annotations.categories import CategoryMatch, match_categories
from runtime.annotations.coco_file import CategoryEntry
from tests.runtime.annotations.coco_files import SPEC

PATH = Path("labels.json")
NAMED = ("__background__", "cat", "dog", "cow")
NUMBERED = ("__background__", "class_1", "class_2", "class_3")
LINE = "categories are matched by"


def _spec(names: tuple[str, ...], ids: tuple[int, ...] = (), *, last: bool = False) -> ModelSpec:
    box = replace(SPEC.box, background="last" if last else "first")
    return replace(SPEC, classes=ClassSpec(names, ids), box=box)


def _match(
    spec: ModelSpec, *entries: tuple[Any, ...], unused: tuple[Any, ...] = ()
) -> CategoryMatch:
    rows = [CategoryEntry(*entry, *([""] * (3 - len(entry)))) for entry in entries]
    return match_categories(PATH, rows, {r.id: 1 for r in rows if r.id not in unused}, spec)


MATCHES: list[tuple[str, ModelSpec, list[tuple[Any, ...]], dict[Any, int], str]] = [
    ("the same", _spec(NAMED), [(1, "cat"), (2, "dog"), (3, "cow")], {1: 1, 2: 2, 3: 3}, ""),
    (
        "case and spaces",
        _spec(NAMED),
        [(1, " Cat"), (2, "DOG "), (3, "cow")],
        {1: 1, 2: 2, 3: 3},
        "",
    ),
    (
        "Unicode forms",
        _spec(("bg", "e\u0301", "b", "c")),
        [(1, "\u00e9"), (2, "b"), (3, "c")],
        {1: 1, 2: 2, 3: 3},
        "",
    ),
    (
        "other order",
        _spec(NAMED),
        [(1, "cow"), (2, "cat"), (3, "dog")],
        {1: 3, 2: 1, 3: 2},
        "3 of 3 have other ids in the model (the file's 1 'cow' is",
    ),
    (
        "text ids",
        _spec(NAMED),
        [("1", "cat"), ("2", "dog"), ("x", "cow")],
        {"1": 1, "2": 2, "x": 3},
        "1 of 3 have other ids",
    ),
    (
        "the model's own ids",
        _spec(("cat", "dog"), (17, 18), last=True),
        [(0, "cat"), (1, "dog")],
        {0: 17, 1: 18},
        "2 of 2 have other ids",
    ),
    ("a subset", _spec(NAMED), [(2, "dog")], {2: 2}, "2 only in the model (cat, cow; not scored)"),
    (
        "one more",
        _spec(NAMED),
        [(1, "cat"), (2, "dog"), (3, "cow"), (4, "hen")],
        {1: 1, 2: 2, 3: 3, 4: 4},
        "1 only in the file (hen; its 1 objects count as missed)",
    ),
    (
        "a name for another id",
        _spec(NAMED),
        [(1, "cat"), (2, "hen"), (3, "cow")],
        {1: 1, 2: 4, 3: 3},
        "missed; its 2 'hen' is the model's 'dog'), 1 only in the model (dog;",
    ),
    (
        "no names in the file",
        _spec(NAMED),
        [(1,), (2,), (3,)],
        {1: 1, 2: 2, 3: 3},
        f"3 {LINE} id, since the file has no names",
    ),
    (
        "numbers as names",
        _spec(NAMED),
        [(1, "1"), (2, "class_2"), (3, " 3")],
        {1: 1, 2: 2, 3: 3},
        f"3 {LINE} id, since the file",
    ),
    (
        "no names in the model",
        _spec(NUMBERED),
        [(1, "cat"), (2, "dog"), (3, "cow")],
        {1: 1, 2: 2, 3: 3},
        f"3 {LINE} id, since the model has no names",
    ),
    (
        "a name of one",
        _spec(NAMED),
        [(1, "dog"), (3,), (2, "cat")],
        {1: 2, 3: 3, 2: 1},
        "2 of 3 have other ids",
    ),
    (
        "ids of their own, and no names",
        _spec(NUMBERED, (0, 17, 18, 20)),
        [(17, "cat"), (18, "dog"), (20, "cow")],
        {17: 17, 18: 18, 20: 20},
        f"3 {LINE} id, since the model has no names",
    ),
    (
        "no names, from 0",
        _spec(NUMBERED),
        [(0, "cat"), (1, "dog"), (2, "cow")],
        {0: 1, 1: 2, 2: 3},
        "the file's ids run from 0, the model's from 1: in this order",
    ),
    (
        "no names, from 1",
        _spec(("class_0", "class_1"), last=True),
        [(1, "cat"), (2, "dog")],
        {1: 0, 2: 1},
        "the file's ids run from 1, the model's from 0: in this order",
    ),
    (
        "COCO's gaps",
        _spec(("bg", "cat", "N/A", "N/A", "dog")),
        [(1, "cat"), (4, "dog")],
        {1: 1, 4: 4},
        "",
    ),
]


def test_matches(subtests: pytest.Subtests) -> None:
    for name, spec, entries, expected, line in MATCHES:
        with subtests.test(name):
            match = _match(spec, *entries)
            assert match.ids == expected
            assert line in " ".join(match.notices)
            assert bool(match.notices) == bool(line)
            known = {spec.classes.dataset_id(n) for n in range(len(spec.classes.names))}
            assert match.common == set(expected.values()) & known


def test_unused_headings_and_the_background_are_left_out() -> None:
    entries = [(0, "animal", "none"), (4, "background"), (5, "N/A")]
    entries += [(1, "cat", "animal"), (2, "dog", "animal"), (3, "cow", "animal")]
    match = _match(_spec(NAMED), *entries, unused=(0, 4, 5))
    assert match.ids == {1: 1, 2: 2, 3: 3}
    assert match.notices == ()
    # Roboflow names a single class like its heading.
    match = _match(_spec(NAMED), (0, "cat", "none"), (1, "cat", "cat"), unused=(0,))
    assert match.ids == {1: 1}


def test_the_background_is_never_a_match() -> None:
    match = _match(_spec(NAMED), (0, "__background__"), (1, "cat"))
    assert match.common == {1}
    assert "1 only in the file (__background__; its 1 objects" in match.notices[0]
    # Nor is it a class that the model calls so.
    match = _match(_spec(("bg", "cat", "background")), (1, "cat"), (2, "background"))
    assert match.ids == {1: 1, 2: 3}


def test_categories_without_a_name_take_the_models_or_their_id() -> None:
    assert _match(_spec(NAMED), (1,), (2, "dog"), (3,)).names == {1: "cat", 2: "dog", 3: "cow"}
    assert _match(_spec(NUMBERED), (1,), (2,)).names == {1: "1", 2: "2"}


REFUSED: list[tuple[str, ModelSpec, list[tuple[Any, ...]], str]] = [
    (
        "a name twice",
        _spec(NAMED),
        [(1, "cat"), (2, "Cat ")],
        "the file has 1 category names twice (cat, Cat ;",
    ),
    (
        "twice in the model",
        _spec(("bg", "cat", "CAT")),
        [(1, "cat")],
        "the model has 1 category names twice",
    ),
    (
        "other names",
        _spec(NAMED),
        [(1, "hen"), (2, "pig")],
        "(1 'hen', 2 'pig') are not among the 3 that the model can predict (1 'cat', ",
    ),
    (
        "other ids",
        _spec(NUMBERED),
        [(77, "hen")],
        "(77 'hen') are not among the 3 that the model can predict (1, 2, 3); set the",
    ),
    (
        "some other ids",
        _spec(NUMBERED),
        [(1, "cat"), (77, "hen")],
        "1 of its categories (77 'hen') are not among the 3",
    ),
    (
        "some other ids without names",
        _spec(NAMED),
        [(1,), (77,)],
        "1 of its categories (77) are not among the 3",
    ),
]


def test_refusals(subtests: pytest.Subtests) -> None:
    for name, spec, entries, message in REFUSED:
        with subtests.test(name):
            with pytest.raises(UsageError) as raised:
                _match(spec, *entries)
            assert message in str(raised.value)
