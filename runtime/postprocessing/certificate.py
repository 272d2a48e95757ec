"""What keeps an answer from being certainly the eager model's, and what is done about it."""

from __future__ import annotations

from typing import Literal, get_args

from model.errors import UsageError
from runtime.sessions.session import Outputs

OnUncertified = Literal["warn", "raise", "ignore"]


class UncertifiedResultWarning(UserWarning):
    """A result that the graph could not certify: NMS undecided, or candidates cut."""


def check_on_uncertified(value: str) -> None:
    """Refuse what is no `OnUncertified`.

    Raises:
        UsageError: another word.
    """
    if value not in get_args(OnUncertified):
        raise UsageError(f"on_uncertified: expected warn, raise or ignore, got '{value}'")


def missing_certificates(answer: Outputs, row: int) -> list[str]:
    """What of one photo is not certain, and which export option helps.

    Args:
        answer: of a session.
        row: the photo's place in the batch.
    """
    found = []
    if is_open := int(answer["nms_open"][row]):
        found.append(
            f"NMS left {is_open} boxes of a photo undecided; export with more --nms-rounds"
        )
    if cut := int(answer["candidates_cut"][row]):
        found.append(
            f"{cut} candidates of a photo were cut that might have counted; export with a "
            "higher --candidates"
        )
    if unsampled := int(answer["samples_cut"][row]):
        found.append(
            f"{unsampled} RoIs of a photo were pooled with too few samples; export with a higher "
            "--max-sampling, or without it"
        )
    return found
