"""The choice of layers within a budget, on photos of the calibration side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from calib.budget import Ladder, climb, most_rungs
from calib.job import Job
from calib.judge import detect
from calib.reference import open_reference
from calib.sensitivity import Damage, groups_in, measure
from model.errors import MissingDependencyError, UsageError

# Photos that groups are judged on: all of them once per group.
PHOTOS = 16


@dataclass(frozen=True, slots=True)
class Choice:
    """What each group costs, and the rungs that were tried."""

    damage: Damage
    ladder: Ladder


def require_judge() -> None:
    """Stop before minutes of work when what scores them is not there.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "--budget and --eval-images need pycocotools; pip install 'maskport[eval]'"
        ) from error


def runs_of_a_search(job: Job) -> int:
    """At most so many photos are run by `choose`."""
    groups = len(groups_in(job))
    reference = job.options.reference is not None
    return min(PHOTOS, len(job.used)) * (groups + 1 + reference + most_rungs(groups))


def choose(job: Job, budget: float, advance: Callable[[int], None]) -> Choice:
    """Rank groups by what they cost and keep the worst until the budget holds.

    Args:
        job: prepared, for the `onnxruntime` or `tensorrt` writer; ONNX Runtime judges both.
        budget: points of agreement AP that may be lost, of boxes and of masks.
        advance: called with photos done; at most `runs_of_a_search`.

    Raises:
        UsageError: the reference has other classes.
        ArtifactError: no choice of layers is within the budget.
        MissingDependencyError: pycocotools is not installed.
    """
    if job.options.format != "int8":
        raise UsageError("--budget: ONNX Runtime, which judges it, has no FP8; use --format int8")
    photos = _photos(job)
    damage = measure(job, photos, advance)
    references = damage.references
    if job.options.reference is not None:
        session = open_reference(job.options.reference, job.artifact, job.options.threads)
        references = detect(session, photos, advance)
    return Choice(damage, climb(job, damage, references, photos, budget, advance))


def _photos(job: Job) -> list[Path]:
    return job.used[:PHOTOS]
