"""Sizes of tuples, counted without an object being made."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from model.files.pickle_limits import check_pickle


def nested(levels: int) -> tuple[object, ...]:
    tower: tuple[object, ...] = ()
    for _ in range(levels):
        tower = (tower,)
    return tower


def doubled(levels: int) -> tuple[object, ...]:
    tower: tuple[object, ...] = (1, 2)
    for _ in range(levels):
        tower = (tower, tower)
    return tower


SOUND = [
    None,
    {"a": torch.zeros(2, 3).shape, "b": [1, 2.5, "text", b"bytes", True]},
    OrderedDict(a=(1, (2, (3,))), b=set(), c=frozenset((1, 2))),
    {("a", i): [i] * 20 for i in range(3000)},
    np.arange(5),
    np.float64(2),
    nested(90),
    doubled(15),
    [[doubled(5)] * 50] * 3,
    {1: {2: {3: {4: {5: ()}}}}},
    -(2**70),
    range(4),
    pickle.PickleBuffer,
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("content", SOUND, ids=lambda c: repr(type(c)))
def test_sound_pickles_pass_to_their_end(content: object, protocol: int) -> None:
    stream = io.BytesIO(pickle.dumps(content, protocol) + b"more")
    check_pickle(stream)
    assert stream.read() == b"more"


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("content", [nested(150), doubled(60), {"a": [doubled(30)]}])
def test_towers_are_refused(content: object, protocol: int) -> None:
    with pytest.raises(ValueError, match="nested tuples"):
        check_pickle(io.BytesIO(pickle.dumps(content, protocol)))


@pytest.mark.parametrize(
    "call",
    [b"ctorch\nSize\nq\x02", b"cbuiltins\nfrozenset\nq\x02"],
    ids=["torch.Size", "frozenset"],
)
def test_what_is_made_of_tuples_counts_as_one(call: bytes) -> None:
    """`x = f((x, x))`, sixty times."""
    again = b"q\x01h\x01\x86\x85q\x030h\x02h\x03R"
    with pytest.raises(ValueError, match="nested tuples"):
        check_pickle(io.BytesIO(b"\x80\x02" + call + b"0)" + again * 60 + b"."))


@pytest.mark.parametrize(
    "body",
    [b"", b"\x80", b"\x80\x02", b"\x80\x02t.", b"\x80\x020.", b"h\x05.", b"q\x00.", b"2.", b"(R.",
     b"\xff", b"I" + b"9" * 9, b"\x8e" + b"\xff" * 8, b"(q\x00.", b"Vx"],
)  # fmt: skip
def test_damage_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_pickle(io.BytesIO(body))


def test_random_bytes_are_never_more_than_a_value_error() -> None:
    rng = np.random.default_rng(0)
    whole = pickle.dumps({"a": (1, [2.5, "x"]), ("b", 2): {3, 4}}, 4)
    refused = 0
    for _ in range(3000):
        body = bytearray(whole)
        for at in rng.integers(0, len(body), 2):
            body[at] = rng.integers(256)
        try:
            check_pickle(io.BytesIO(body))
        except ValueError:
            refused += 1
    assert 300 < refused < 3000
