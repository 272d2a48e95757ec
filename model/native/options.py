"""Limits of the static forms of the two operators."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NativeOptions:
    """Iterations and sizes of NMS, and the number of RoI samples.

    docs/results/rounds.md has the iterations that real photos need; the defaults are at most
    twice as many.

    Attributes:
        proposal_rounds: NMS iterations per block of proposals; `nms_open` counts the boxes that
            are undecided after them.
        detection_rounds: NMS iterations per block of detections.
        nms_block: maximum number of boxes in a block.
        chunk_bytes: maximum size of one tensor of RoI samples; one RoI is always allowed.
        max_sampling: M, for poolers whose number of samples depends on the RoI: a bin has M * M
            samples, and `samples_cut` counts the RoIs that need more. None: as many as any RoI
            inside the canvas needs.
    """

    proposal_rounds: int = 64
    detection_rounds: int = 20
    nms_block: int = 512
    chunk_bytes: int = 256_000_000
    max_sampling: int | None = None

    def rounds(self, stage: str) -> int:
        """NMS iterations of "proposals" or "detections"."""
        return {"proposals": self.proposal_rounds, "detections": self.detection_rounds}[stage]

    def block_size(self, boxes: int) -> int:
        """Boxes per block, for as few and as equal blocks as possible."""
        return even_size(boxes, self.nms_block)


def even_size(length: int, at_most: int) -> int:
    """Size of the parts if `length` is split into as few and as equal parts as possible."""
    return -(-length // -(-length // at_most))
