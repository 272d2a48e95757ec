"""Certificates of a result: whether the graph proved it equal to the eager model's."""

from __future__ import annotations

from typing import Literal, get_args

from model.errors import UsageError
from runtime.sessions.session import Outputs

OnUncertified = Literal["warn", "raise", "ignore"]


class UncertifiedResultWarning(UserWarning):
    """A result that the graph could not certify: NMS undecided, or candidates or samples cut."""


def check_on_uncertified(value: str) -> None:
    """Check a value of `OnUncertified`.

    Raises:
        UsageError: another value.
    """
    if value not in get_args(OnUncertified):
        raise UsageError(f"on_uncertified: expected warn, raise or ignore, got '{value}'")


def missing_certificates(outputs: Outputs, row: int) -> list[str]:
    """What the graph did not certify for one photo, with the export option that helps.

    Args:
        outputs: of a session.
        row: the photo's index in the batch.
    """
    missing = []
    if undecided := int(outputs["nms_open"][row]):
        missing.append(
            f"NMS left {undecided} boxes of a photo undecided; export with more --nms-rounds"
        )
    if cut := int(outputs["candidates_cut"][row]):
        missing.append(
            f"{cut} candidates of a photo were cut that might have counted; export with a higher "
            "--candidates"
        )
    if undersampled := int(outputs["samples_cut"][row]):
        missing.append(
            f"{undersampled} RoIs of a photo were pooled with too few samples; export with a "
            "higher --max-sampling, or without it"
        )
    return missing
