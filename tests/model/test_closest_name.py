"""The closest name: found among a checkpoint's, and not searched for at any price."""

from __future__ import annotations

import time

from model.closest_name import closest_name

NAME = "backbone.bottom_up.res2.0.conv1.norm.running_mean"


def test_the_most_alike_is_found() -> None:
    names = ["roi_heads.mask_head.deconv.bias", NAME.replace("norm", "bn"), NAME[:20]]
    assert closest_name(NAME, names) == names[1]
    assert closest_name(NAME, iter(names)) == names[1]
    assert closest_name(NAME, ["x", "y"]) is None
    assert closest_name(NAME, []) is None


def test_many_names_take_no_longer() -> None:
    names = [f"{NAME}.{i}" for i in range(300_000)]
    started = time.perf_counter()
    closest_name(NAME, names)
    assert time.perf_counter() - started < 2


def test_long_names_are_passed_over() -> None:
    letters = "ab" * 50_000
    started = time.perf_counter()
    assert closest_name(NAME, [*[f"{i}{letters}" for i in range(200)], NAME + "s"]) == NAME + "s"
    assert closest_name(letters, [f"{letters}{i}" for i in range(20)]) is None
    assert time.perf_counter() - started < 2
