"""What each group of layers costs when it alone is quantised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from calib.calibration.tapped_session import TappedSession
from calib.evaluation.agreement import Scores, detect, scores
from calib.graph.groups import Group, groups_of
from calib.graph.presets import UNJUDGED_ROLE
from calib.quantizer import Job
from calib.search.sqnr import Recorder, sqnr_db, taps_for, tensor_at
from calib.writers.registry import WRITERS
from runtime.detections import Detections


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Of one group.

    `sqnr_db` is signal over noise at the tensors of `calib.search.sqnr.taps_for`, None where they
    could not be compared. `share` is the group's part of all multiply-adds.
    """

    group: Group
    scores: Scores
    sqnr_db: float | None
    share: float

    @property
    def loss_per_work(self) -> tuple[float, float]:
        """Points lost for a multiply-add in 8 bits; what is kept first has most. Ties by noise.

        Points and not noise: the same noise at the logits costs next to nothing behind one layer
        and a lot behind another, because it decides which proposals live.
        """
        noise = 0.0 if self.sqnr_db is None else 10.0 ** (-min(self.sqnr_db, 300.0) / 10.0)
        work = max(self.share, 1e-9)
        return self.scores.mean_loss / work, noise / work


@dataclass(frozen=True, slots=True)
class Damage:
    """All groups, the worst first, and what the float graph finds on the same photos."""

    ranked: tuple[Sensitivity, ...]
    references: list[Detections]


def groups_in(job: Job) -> list[Group]:
    """The groups of all layers that can be quantised and judged, whatever the preset keeps."""
    hidden = [layer for layer in job.layers if not layer.is_predictor]
    hidden = [layer for layer in hidden if layer.role != UNJUDGED_ROLE]
    placed = WRITERS[job.writer].place(job.model.graph, hidden).layers
    return groups_of(job.model.graph, placed)


def measure(
    job: Job,
    photos: Sequence[Path],
    advance: Callable[[int], None],
    known: Sequence[Sensitivity] = (),
    keep: Callable[[Sensitivity], None] = lambda one: None,
) -> Damage:
    """Quantise one group after the other and look at the damage.

    Args:
        job: prepared.
        photos: of the calibration side.
        advance: called with photos done; there are (groups + 1) times as many.
        known: of groups that were measured before, on the same photos.
        keep: called with every group that is measured now.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    layers = job.layers
    nodes = {name for layer in layers for name in taps_for(layers, layer.role)}
    reference = Recorder()
    references = _detect(job, set(), nodes, reference, photos, advance)
    before = {one.group.nodes: one for one in known}
    found = []
    for group in groups_in(job):
        if group.nodes in before:
            found.append(before[group.nodes])
            advance(len(photos))
            continue
        role = next(one.role for one in layers if one.node.name in group.nodes)
        taps, noisy = taps_for(layers, role), Recorder()
        detections = _detect(job, group.nodes, set(taps), noisy, photos, advance)
        agreed = scores(references, detections)
        found.append(
            Sensitivity(group, agreed, sqnr_db(reference, noisy, taps), job.share_of(group.nodes))
        )
        keep(found[-1])
    ranked = sorted(found, key=lambda one: one.loss_per_work, reverse=True)
    return Damage(tuple(ranked), references)


def _detect(
    job: Job,
    choice: frozenset[str] | set[str],
    nodes: set[str],
    recorder: Recorder,
    photos: Sequence[Path],
    advance: Callable[[int], None],
) -> list[Detections]:
    model, _ = job.quantised(choice)
    tensors = tensor_at(model, nodes)
    by_tensor = {tensor: node for node, tensor in tensors.items()}
    session = TappedSession(
        model,
        job.artifact,
        list(by_tensor),
        partial(_see, recorder, by_tensor),
        job.options.threads,
    )
    return detect(session, photos, advance)


def _see(recorder: Recorder, by_tensor: dict[str, str], name: str, values: object) -> None:
    recorder.see(by_tensor[name], values)  # type: ignore[arg-type]
