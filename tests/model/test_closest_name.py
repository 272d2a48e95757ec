"""The closest name to one that is missing, within limits of how many and how long."""

from __future__ import annotations

from model.errors import closest_name

NAME = "backbone.bottom_up.res2.0.conv1.norm.running_mean"


def test_the_closest_of_few_short_names() -> None:
    names = ["roi_heads.mask_head.deconv.bias", NAME.replace("norm", "bn"), NAME[:20]]
    assert closest_name(NAME, names) == names[1]
    assert closest_name(NAME, iter(names)) == names[1]
    assert closest_name(NAME, ["x", "y"]) is None
    assert closest_name(NAME, []) is None
    names = (f"{NAME}.{i}" for i in range(3000))
    closest_name(NAME, names)
    assert next(names) == f"{NAME}.2000"
    letters = "ab" * 100
    assert closest_name(NAME, [f"{NAME}{letters}", f"{NAME}s"]) == f"{NAME}s"
    assert closest_name(f"{letters}{NAME}", [f"{letters}{NAME}"]) is None
