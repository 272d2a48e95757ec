"""What the static forms of the two operators may spend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NativeOptions:
    """Rounds and sizes of NMS as a fixed-point iteration, and of RoI samples.

    What real photos need is in docs/results/rounds.md; the defaults are at most twice that.

    Attributes:
        proposal_rounds: NMS iterations per block of proposals; `open` says when they were too few.
        detection_rounds: NMS iterations per block of detections.
        nms_block: the most boxes of one block.
        chunk_bytes: the most that one tensor of RoI samples may take, where more than one RoI
            fits.
        max_sampling: M; where the number of samples depends on the RoI, a bin has M * M, and
            `samples_cut` counts the RoIs that need more. None: as many as any RoI inside the
            canvas needs.
    """

    proposal_rounds: int = 64
    detection_rounds: int = 20
    nms_block: int = 512
    chunk_bytes: int = 256_000_000
    max_sampling: int | None = None

    def rounds(self, stage: str) -> int:
        """Of "proposals" or "detections"."""
        return {"proposals": self.proposal_rounds, "detections": self.detection_rounds}[stage]

    def block_size(self, boxes: int) -> int:
        """Boxes of a block when so many are cut into few; the last block may be shorter."""
        return even_size(boxes, self.nms_block)


def even_size(length: int, at_most: int) -> int:
    """Size of the pieces when a length is cut into as few and as equal ones as possible."""
    return -(-length // -(-length // at_most))
