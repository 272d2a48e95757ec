"""A checkpoint opened: its spec and network, and the names and shapes that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.checkpoint import SpecOptions, load
from model.errors import CheckpointError
from model.families.torchvision.dialect import DIALECT
from tests.small_checkpoint import LANDMARK, SPEC, saved, sound_state

COUNTER = "num_batches_tracked"


def test_sound_weights_are_read(tmp_path: Path) -> None:
    network = load(saved(tmp_path)).build()
    assert not network.training
    state = network.state_dict()
    assert not any(p.is_meta or p.requires_grad for p in network.parameters())
    given = sound_state()
    for name, tensor in state.items():
        assert torch.equal(given[DIALECT.original(name, SPEC)], tensor), name
    assert load(saved(tmp_path)).spec == SPEC
    checkpoint = load(saved(tmp_path))
    assert set(checkpoint.original) == set(sound_state())
    assert {DIALECT.original(n, SPEC) for n in checkpoint.tensors} == set(checkpoint.original)


def test_old_names_give_the_same_network(tmp_path: Path) -> None:
    old = {
        name.replace("fpn.inner_blocks.0.0.", "fpn.inner_blocks.0.")
        .replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        .replace("mask_head.0.0.", "mask_head.mask_fcn1."): tensor
        for name, tensor in sound_state().items()
    }
    assert set(old) != set(sound_state())
    checkpoint = load(saved(tmp_path, old))
    assert checkpoint.spec == SPEC
    state = checkpoint.build().state_dict()
    assert torch.equal(
        state["mask_head.convs.0.0.weight"], sound_state()["roi_heads.mask_head.0.0.weight"]
    )
    without = {n: t for n, t in sound_state().items() if not n.endswith(COUNTER)}
    assert len(without) < len(sound_state())
    assert load(saved(tmp_path, without)).spec == SPEC
    load(saved(tmp_path, without)).build()


def _keys() -> list[str]:
    return [name for name in sound_state() if not name.endswith(COUNTER)]


def test_a_missing_tensor_is_named(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name in _keys():
        with subtests.test(name=name):
            state = sound_state()
            del state[name]
            with pytest.raises(CheckpointError) as caught:
                load(saved(tmp_path, state))
            assert f"'{name}'" in str(caught.value)


def test_a_misspelt_tensor_is_named_with_the_closest(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for name in _keys()[::5]:
        with subtests.test(name=name):
            state = sound_state()
            state[f"{name}s"] = state.pop(name)
            with pytest.raises(CheckpointError) as caught:
                load(saved(tmp_path, state))
            assert f"'{name}'" in str(caught.value)
            assert f"'{name}s'" in str(caught.value) or name == LANDMARK


@pytest.mark.parametrize(
    ("extra", "closest"),
    [
        ("roi_heads.box_head.fc8.weight", "roi_heads.box_head.fc7.weight"),
        ("backbone.body.bn1.weigth", "backbone.body.bn1.weight"),
        ("body.conv1.weight", "backbone.body.conv1.weight"),
    ],
)
def test_an_extra_tensor_is_named_with_the_closest(
    extra: str, closest: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(saved(tmp_path, {**sound_state(), extra: torch.ones(2)}))
    assert f"unexpected tensors: 1, first '{extra}' (closest expected name: '{closest}')" in str(
        caught.value
    )


RESHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "scalar": lambda t: t.reshape(-1)[0].clone(),
    "flat": lambda t: t.reshape(-1),
    "deeper": lambda t: t[None],
    "doubled": lambda t: torch.cat([t, t]),
    "wider": lambda t: torch.cat([t, t], dim=-1),
}


def _reshaped() -> list[tuple[str, str]]:
    state = sound_state()
    pairs = [(name, how) for name in _keys()[::6] for how in RESHAPES]
    return [(n, how) for n, how in pairs if RESHAPES[how](state[n]).shape != state[n].shape]


def test_a_wrong_shape_never_passes(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, how in _reshaped():
        with subtests.test(name=name, how=how):
            state = sound_state()
            state[name] = RESHAPES[how](state[name])
            with pytest.raises(CheckpointError) as caught:
                load(saved(tmp_path, state))
            assert str(caught.value).startswith(str(tmp_path / "weights.pth"))


def test_other_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(saved(tmp_path, nn.Sequential(nn.Linear(2, 3)).state_dict()))
    assert "'0.weight'" in str(caught.value)
    assert f"'{LANDMARK}'" in str(caught.value)
    overrides = {"body": {"channels": [1_000_000] * 4, "widths": [1_000_000] * 4}}
    with pytest.raises(CheckpointError):
        load(saved(tmp_path), SpecOptions(overrides=overrides))
    state = sound_state()
    state["rpn.head.conv.weight"] = state["rpn.head.conv.0.0.weight"] * 2
    with pytest.raises(CheckpointError, match="twice"):
        load(saved(tmp_path, state))
