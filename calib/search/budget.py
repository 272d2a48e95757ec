"""Keep the layers that cost most in floating point until the loss is within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calib.evaluation.agreement import Scores, detect, scores
from calib.evaluation.candidate_session import session_of_model
from calib.quantizer import Job
from calib.search.sensitivity import Damage
from model.errors import ArtifactError
from runtime.detections import Detections


@dataclass(frozen=True, slots=True)
class Rung:
    """One choice: so many of the ranked groups are kept in floating point.

    `share` is the part of all multiply-adds that is left in 8 bits; `nodes` are its layers'.
    """

    kept: int
    share: float
    scores: Scores
    nodes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs that were tried, by how many groups they keep, and the one that holds."""

    rungs: tuple[Rung, ...]
    chosen: Rung


def most_rungs(groups: int) -> int:
    """How many rungs a search tries at most."""
    return max(groups - 1, 1).bit_length() + 2


def climb(
    job: Job,
    damage: Damage,
    references: Sequence[Detections],
    photos: Sequence[Path],
    budget: float,
    advance: Callable[[int], None],
    tried: dict[int, Rung] | None = None,
) -> Ladder:
    """Find the smallest number of kept groups with which the loss is within the budget.

    Args:
        job: prepared.
        damage: of the groups, the worst first.
        references: what to agree with on these photos.
        photos: of the calibration side.
        budget: points of agreement AP, box and mask, that may be lost.
        advance: called with photos done; at most `most_rungs` times as many.
        tried: rungs that are known already, by how many groups they keep; filled.

    Raises:
        ArtifactError: even the least harmful group alone is not within the budget.
    """
    tried = {} if tried is None else tried

    def holds(kept: int) -> bool:
        if kept not in tried:
            tried[kept] = _rung(job, damage, kept, references, photos, advance)
        return tried[kept].scores.loss <= budget

    # Between a number that does not hold and one that does, halve; more float is taken for better.
    low, high = -1, len(damage.ranked) - 1
    if not holds(high):
        raise ArtifactError(
            f"--budget {budget:g}: with a single group of layers in 8 bits, "
            f"'{damage.ranked[-1].group.title}', {tried[high].scores.loss:.2f} points are lost "
            f"already on {len(photos)} calibration photos; allow more"
        )
    if holds(0):
        high = 0
    else:
        low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    rungs = tuple(tried[kept] for kept in sorted(tried))
    return Ladder(rungs, tried[high])


def _rung(
    job: Job,
    damage: Damage,
    kept: int,
    references: Sequence[Detections],
    photos: Sequence[Path],
    advance: Callable[[int], None],
) -> Rung:
    nodes = frozenset().union(*(one.group.nodes for one in damage.ranked[kept:]))
    model, placement = job.quantised(nodes)
    found = detect(session_of_model(job, model), photos, advance)
    return Rung(kept, job.share(placement), scores(references, found), nodes)
