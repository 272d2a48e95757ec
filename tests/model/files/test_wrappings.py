"""The network's tensors are found by a name that it must have, whatever wraps them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from model.checkpoint import load
from model.errors import CheckpointError
from model.families.torchvision.reference import eager_model
from model.files import wrappings
from model.files.wrappings import locate
from tests.small_checkpoint import LANDMARK, SPEC, sound_state

ONE = torch.ones(1)


def under(prefix: str, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    return {f"{prefix}{n}": t for n, t in (sound_state() if state is None else state).items()}


def part_renamed(part: str, new: str) -> dict[str, Tensor]:
    return {
        new + n.removeprefix(part) if n.startswith(part) else n: t for n, t in sound_state().items()
    }


def other(prefix: str = "") -> dict[str, Tensor]:
    """Weights of the same names and other values."""
    state = {n: t * 0 if t.is_floating_point() else t for n, t in sound_state().items()}
    return under(prefix, state)


# What is saved, and what the note about it has.
WRAPPED: dict[str, tuple[Any, str]] = {
    "attribute": ({"state_dict": under("detector."), "epoch": 3}, "['state_dict'] 'detector.*'"),
    "attributes": (under("task.net.model."), "'task.net.model.*'"),
    "any key": ({"net": sound_state(), "optimizer": {"state": {0: {"step": ONE}}}}, "['net']"),
    "two keys": ({"checkpoint": {"weights": sound_state()}}, "['checkpoint']['weights']"),
    "compiled": (under("model._orig_mod."), "'model._orig_mod.*'"),
    "compiled part": (part_renamed("backbone.", "backbone._orig_mod."), ""),
    "parallel part": (part_renamed("roi_heads.", "roi_heads.module."), ""),
    "averaged model": ({**under("module."), "n_averaged": ONE}, "other tensors beside it: 1"),
    "metric": (
        {"state_dict": {**under("model."), "metric.confusion": torch.ones(3, 3)}},
        "other tensors beside it: 1",
    ),
    "number at the root": ({**sound_state(), "metric.total": ONE}, "other tensors beside it: 1"),
    "averaged alone": ({"ema": under("module."), "updates": 7}, "['ema'] 'module.*'"),
    "averaged first": ({"ema": other(), "model": sound_state()}, "['model']; not used: ['ema']"),
    "averaged beside": (
        OrderedDict({**other("ema_model.module."), **under("student.")}),
        "'student.*'; not used: 'ema_model.module.*'",
    ),
    "two networks": ([], "'first.*'; not used: 'second.*'"),
}
WRAPPED["two networks"] = ({**under("first."), **other("second.")}, WRAPPED["two networks"][1])


def test_any_wrapping(tmp_path: Path, subtests: pytest.Subtests) -> None:
    path = tmp_path / "weights.pth"
    for case, (content, note) in WRAPPED.items():
        with subtests.test(case):
            torch.save(content, path)
            checkpoint = load(path)
            expected = sound_state()
            assert checkpoint.original.keys() == expected.keys()
            assert all(torch.equal(checkpoint.original[n], t) for n, t in expected.items())
            assert note in checkpoint.taken
            assert bool(checkpoint.taken) == bool(note)


def test_the_library_s_own_wrappers(tmp_path: Path) -> None:
    """The names that PyTorch gives, not those that this project expects."""
    wrapped = nn.Module()
    wrapped.detector = AveragedModel(nn.DataParallel(eager_model(SPEC, sound_state())))
    torch.save({"state_dict": wrapped.state_dict()}, tmp_path / "w.pth")
    checkpoint = load(tmp_path / "w.pth")
    assert checkpoint.original.keys() == sound_state().keys()
    where = "['state_dict'] 'detector.module.module.*'; other tensors beside it: 1"
    assert checkpoint.taken == where


def test_what_may_be_a_part_of_the_network_is_refused(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    path = tmp_path / "weights.pth"
    for case, extra, message in [
        (
            "layer",
            {"attention.weight": torch.ones(3, 3)},
            "unexpected tensors: 1, first 'attention",
        ),
        ("number in a part", {"rpn.scale": ONE}, "unexpected tensors: 1, first 'rpn.scale'"),
        ("twice", {f"module.{LANDMARK}": ONE}, "twice, as"),
    ]:
        with subtests.test(case):
            torch.save({**sound_state(), **extra}, path)
            with pytest.raises(CheckpointError, match=message):
                load(path)


class _Known:
    landmark = "head.weight"

    def __init__(self) -> None:
        self.calls = 0

    def recognizes(self, names: object) -> bool:
        self.calls += 1
        return False


def test_the_search_is_bounded() -> None:
    """In a file of many references to one dict, and in one with a landmark in every name."""
    shared = {f"k{i}": {} for i in range(2000)}
    known = _Known()
    begin = time.process_time()
    locate({f"k{i}": shared for i in range(2000)}, [known])
    locate({f"{i}.head.weight": ONE for i in range(2000)}, [known])
    locate({10**5000: {"head.weight": ONE}, "x" * 999: {"head.weight": ONE}}, [known])
    assert time.process_time() - begin < 5
    assert known.calls == wrappings._MOST_PREFIXES
