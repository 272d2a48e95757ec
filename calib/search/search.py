"""The choice of layers within a budget, on photos of the calibration side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from calib.calibration.tapped_session import TappedSession
from calib.evaluation.agreement import LEAST_SURE, detect, sure_rows
from calib.evaluation.reference import open_reference
from calib.quantizer import Job
from calib.search.budget import Ladder, climb, most_rungs
from calib.search.sensitivity import Damage, groups_in, measure
from model.errors import MissingDependencyError, UsageError
from runtime.compare.agreement import TRUTH_SCORE
from runtime.sessions.session import Session

# Photos that groups are ranked on: all of them once per group.
PHOTOS = 16
# Photos that a choice must hold on; there are few choices, so there can be more photos.
CHOICE_PHOTOS = 48


@dataclass(frozen=True, slots=True)
class Choice:
    """What each group costs, and the rungs that were tried, on so many `photos`."""

    damage: Damage
    ladder: Ladder
    photos: int


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
    ranked, held = (min(most, len(job.used)) for most in (PHOTOS, CHOICE_PHOTOS))
    return ranked * (groups + 1) + held * (1 + most_rungs(groups))


def choose(job: Job, budget: float, advance: Callable[[int], None]) -> Choice:
    """Rank groups by what they cost and keep the worst until the budget holds.

    Args:
        job: prepared, for the `onnxruntime` or `tensorrt` writer; ONNX Runtime judges both.
        budget: points of agreement AP that may be lost, of boxes and of masks.
        advance: called with photos done; at most `runs_of_a_search`.

    Raises:
        UsageError: the reference has other classes, or is sure of next to nothing on the photos.
        ArtifactError: no choice of layers is within the budget.
        MissingDependencyError: pycocotools is not installed.
    """
    photos = job.used[:CHOICE_PHOTOS]
    references = detect(_reference(job), photos, advance)
    sure = sure_rows(references)
    if sure < LEAST_SURE:
        raise UsageError(
            f"--budget: on {len(photos)} calibration photos the reference is sure (score "
            f"{TRUTH_SCORE} and more) of {sure} objects; expected {LEAST_SURE} or more to judge "
            "by, give photos of what the model knows"
        )
    damage = measure(job, job.used[:PHOTOS], advance)
    ladder = climb(job, damage, references, photos, budget, advance)
    return Choice(damage, ladder, len(photos))


def _reference(job: Job) -> Session:
    """What was asked for, else the input graph as it is in its file."""
    threads = job.options.threads
    if job.options.reference is not None:
        return open_reference(job.options.reference, job.artifact, threads)
    return TappedSession(ir.serde.deserialize_model(job.file.model), job.artifact, threads=threads)
