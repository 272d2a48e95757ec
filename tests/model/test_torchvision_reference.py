"""The reference of a checkpoint is the model itself, once its spec is complete."""

from __future__ import annotations

import copy
from typing import Any

import torch

from model.families.torchvision.reference import eager_model
from model.live.read import read_live
from tests.model.test_assumptions import ROUNDS, _live, dilate_mask_head, other_pooler


def test_the_reference_equals_the_live_model() -> None:
    """Dilations, levels, sizes and thresholds: bit for bit, from the spec and the weights alone."""
    base = _live("mask")
    photo = torch.rand(3, 120, 150, generator=torch.Generator().manual_seed(0))
    for number, changes in enumerate(ROUNDS):
        model: Any = copy.deepcopy(base)
        own = (dilate_mask_head, other_pooler("box"), other_pooler("mask"))
        for change in (*changes, *(own if number == 0 else ())):
            change(model)
        model.roi_heads.score_thresh = 0.0
        spec = read_live(model).spec
        with torch.inference_mode():
            expected = model([photo])[0]
            actual = eager_model(spec, model.state_dict())([photo])[0]
        assert len(expected["scores"]) > 0
        assert all(torch.equal(actual[key], expected[key]) for key in expected)
