"""Limits on a pickle's tuples and opcodes, checked without making an object."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import pytest
import torch

from model.files.pickle_limits import check_pickle

PROTOCOLS = range(6)


def nested(levels: int) -> tuple[object, ...]:
    value: tuple[object, ...] = ()
    for _ in range(levels):
        value = (value,)
    return value


PLAIN = {
    "none": None,
    "mixed": {"a": torch.zeros(2, 3).shape, "b": [1, 2.5, "text", b"bytes", True]},
    "ordered": OrderedDict(a=(1, (2, (3,))), b=set(), c=frozenset((1, 2))),
    "tuple keys": {("a", i): [i] * 20 for i in range(300)},
    "array": np.arange(5),
    "scalar": np.float64(2),
    "nested": nested(9),
    "repeated": [(1, 2)] * 50,
    "dicts": {1: {2: {3: {4: {5: ()}}}}},
    "long": -(2**70),
    "call": Fraction(1, 3),
    "name": pickle.PickleBuffer,
}


def test_pickles_within_the_limits_pass_to_their_end(subtests: pytest.Subtests) -> None:
    for name, content in PLAIN.items():
        with subtests.test(name):
            for protocol in PROTOCOLS:
                stream = io.BytesIO(pickle.dumps(content, protocol) + b"more")
                check_pickle(stream)
                assert stream.read() == b"more"


TWICE = (1, 2, 3)
# Content just within the limits, and content one step beyond.
LIMITED: dict[str, tuple[dict[str, int], object, object]] = {
    "depth": ({"max_depth": 4}, nested(4), nested(5)),
    "members": ({"max_items": 9}, tuple(range(8)), tuple(range(9))),
    "members that repeat": ({"max_items": 9}, (TWICE, TWICE), (TWICE, TWICE, 4)),
    "a called type": ({"max_depth": 3}, (torch.Size((1,)),), ((torch.Size((1,)),),)),
    "a set": ({"max_items": 5}, frozenset({(1, 2, 3)}), frozenset({(1, 2, 3, 4)})),
}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_one_step_beyond_a_limit_is_refused(protocol: int, subtests: pytest.Subtests) -> None:
    for name, (limits, within, beyond) in LIMITED.items():
        if name == "a set" and protocol < 4:  # before, it is made of a list
            continue
        with subtests.test(name):
            check_pickle(io.BytesIO(pickle.dumps(within, protocol)), **limits)
            with pytest.raises(ValueError, match="nested tuples"):
                check_pickle(io.BytesIO(pickle.dumps(beyond, protocol)), **limits)


def test_opcodes_are_limited() -> None:
    body = pickle.dumps([1, 2, 3])
    count = len(list(pickletools.genops(body)))
    check_pickle(io.BytesIO(body), max_opcodes=count)
    with pytest.raises(ValueError, match=f"more than {count - 1} opcodes"):
        check_pickle(io.BytesIO(body), max_opcodes=count - 1)


def test_damage_is_a_value_error() -> None:
    """Damaged by hand, then with random bytes, of which some leave a whole pickle."""
    for body in (b"", b"\x80\x02", b"\x80\x02t.", b"\x80\x020.", b"h\x05.", b"q\x00.", b"2.",
                 b"(R.", b"(q\x00.", b"Vx", b"\xff"):  # fmt: skip
        with pytest.raises(ValueError, match=r"."):
            check_pickle(io.BytesIO(body))
    rng = np.random.default_rng(0)
    whole = pickle.dumps({"a": (1, [2.5, "x"]), ("b", 2): {3, 4}}, 4)
    refused = 0
    for _ in range(1000):
        changed = bytearray(whole)
        for at in rng.integers(0, len(changed), 2):
            changed[at] = rng.integers(256)
        try:
            check_pickle(io.BytesIO(changed))
        except ValueError:
            refused += 1
    assert 100 < refused < 1000
