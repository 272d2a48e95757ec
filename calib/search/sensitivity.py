"""The accuracy lost and the noise added by quantizing each group of layers alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from calib.calibration.photos import Photo
from calib.calibration.tapped_session import TappedSession
from calib.evaluation.agreement import Scores, agreement, detect
from calib.graph.groups import Group, groups_of
from calib.graph.layers import Layer, hidden_layers
from calib.graph.presets import UNSCORED_ROLE, WHOLE_IMAGE_ROLES
from calib.quantizer import Quantizer
from calib.writers.registry import WRITERS
from model.arrays import Float32
from runtime.detections import Detections

# Values sampled from a tensor, evenly spaced.
_SAMPLES = 1 << 16


def taps_for(layers: Sequence[Layer], role: str) -> list[str]:
    """Names of layers whose outputs show a part's noise, row by row.

    For the parts that run on the whole image: the RPN's predictors, which depend on the whole
    pyramid. For a head: its last layer; the proposals are those of the float graph as long as
    nothing before the head is quantized.
    """
    if role in WHOLE_IMAGE_ROLES:
        return [one.name for one in layers if one.is_predictor and one.role == "rpn"]
    own = [one.name for one in layers if one.role == role]
    return own[-1:]


@dataclass(slots=True)
class Recorder:
    """Samples of tensors by layer, in the order of the runs."""

    samples: dict[str, list[Float32]] = field(default_factory=dict)

    def record(self, layer: str, values: Float32) -> None:
        """Take a sample, at the same positions for the same shape."""
        flat = values.reshape(-1)
        step = max(len(flat) // _SAMPLES, 1)
        self.samples.setdefault(layer, []).append(flat[::step].copy())


def sqnr_db(reference: Recorder, quantized: Recorder, layers: Sequence[str]) -> float | None:
    """10 log10 of signal power over noise power, over all of the layers together.

    Runs in which a tensor's shape differs are left out: their rows do not correspond. None without
    any run; infinity without noise.
    """
    signal = noise = 0.0
    for layer in layers:
        pairs = zip(reference.samples.get(layer, ()), quantized.samples.get(layer, ()), strict=True)
        for exact, other in pairs:
            if len(exact) != len(other):
                continue
            signal += float(np.square(exact, dtype=np.float64).sum())
            noise += float(np.square(exact - other, dtype=np.float64).sum())
    if signal == 0.0:
        return None
    return math.inf if noise == 0.0 else 10.0 * math.log10(signal / noise)


@dataclass(frozen=True, slots=True)
class GroupSensitivity:
    """Of one group.

    `sqnr_db` is measured at the layers of `taps_for`, None where no run could be compared.
    `fraction` is the group's part of all multiply-adds.
    """

    group: Group
    scores: Scores
    sqnr_db: float | None
    fraction: float

    @property
    def loss_per_work(self) -> tuple[float, float]:
        """Points lost per multiply-add in 8 bits, then noise per multiply-add for ties.

        Points first, because the same noise at the logits costs nothing after one layer and a lot
        after another: it depends on which proposals it changes.
        """
        noise = 0.0 if self.sqnr_db is None else 10.0 ** (-min(self.sqnr_db, 300.0) / 10.0)
        work = max(self.fraction, 1e-9)
        return self.scores.mean_loss / work, noise / work


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """All groups, the most sensitive first, and the float graph's detections."""

    ranked: tuple[GroupSensitivity, ...]
    references: list[Detections]


def searchable_groups(quantizer: Quantizer) -> list[Group]:
    """The groups of all layers that can be quantized and scored, whatever the preset."""
    graph = quantizer.model.graph
    scored = [layer for layer in hidden_layers(graph) if layer.role != UNSCORED_ROLE]
    return groups_of(graph, WRITERS[quantizer.context.writer].place(graph, scored).layers)


def measure_sensitivity(
    quantizer: Quantizer,
    photos: Sequence[Photo],
    known: Sequence[GroupSensitivity] = (),
    on_group: Callable[[GroupSensitivity], None] = lambda one: None,
) -> Sensitivity:
    """Quantize one group after the other and compare with the float graph.

    Runs the photos once per group and once more.

    Args:
        quantizer: prepared.
        photos: of the calibration set.
        known: results of an earlier run, on the same photos.
        on_group: called with every new result.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    layers = quantizer.layers
    all_taps = {name for layer in layers for name in taps_for(layers, layer.role)}
    exact = Recorder()
    references = _detect(quantizer, (), all_taps, exact, photos)
    earlier = {one.group.nodes: one for one in known}
    results = []
    for group in searchable_groups(quantizer):
        if group.nodes in earlier:
            results.append(earlier[group.nodes])
            quantizer.context.advance(len(photos))
            continue
        role = next(one.role for one in layers if one.name in group.nodes)
        taps, noisy = taps_for(layers, role), Recorder()
        detections = _detect(quantizer, group.nodes, taps, noisy, photos)
        scores, db = agreement(references, detections), sqnr_db(exact, noisy, taps)
        results.append(GroupSensitivity(group, scores, db, quantizer.work_fraction(group.nodes)))
        on_group(results[-1])
    ranked = sorted(results, key=lambda one: one.loss_per_work, reverse=True)
    return Sensitivity(tuple(ranked), references)


def _detect(
    quantizer: Quantizer,
    nodes: Collection[str],
    taps: Collection[str],
    recorder: Recorder,
    photos: Sequence[Photo],
) -> list[Detections]:
    """Detections with those layers quantized; records the outputs of the layers in `taps`."""
    context = quantizer.context
    model, _ = quantizer.quantized(nodes)
    layer_of = {str(n.outputs[0].name): str(n.name) for n in model.graph if n.name in taps}
    session = TappedSession(
        model,
        context.artifact,
        list(layer_of),
        lambda tensor, values: recorder.record(layer_of[tensor], values),
        context.threads,
    )
    pixels = map(context.pixels, photos)
    return detect(session, pixels, context.advance, context.options.value_range)
