"""The accuracy lost by quantizing each group of layers alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from calib.calibration.photos import Photo
from calib.calibration.tapped_session import TappedSession
from calib.evaluation.agreement import Scores, agreement, detect
from calib.graph.groups import Group, groups_of
from calib.graph.layers import hidden_layers
from calib.graph.presets import UNSCORED_ROLE
from calib.quantizer import Quantizer
from calib.search.sqnr import Recorder, sqnr_db, taps_for
from calib.writers.registry import WRITERS
from runtime.detections import Detections


@dataclass(frozen=True, slots=True)
class GroupSensitivity:
    """Of one group.

    `sqnr_db` is measured at the layers of `calib.search.sqnr.taps_for`, None where no run could be
    compared. `fraction` is the group's part of all multiply-adds.
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
    return detect(session, map(context.pixels, photos), context.advance)
