"""The eager model again with another rounding: the noise that limits allow for.

A variant changes nothing but the order in which floats are added: another convolution library,
another number of threads, another place in the batch.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from export.parity.network_reference import NetworkEager
from export.parity.torchvision_reference import EagerRun, TorchvisionEager
from model.arrays import UInt8
from runtime.compare.matching import compare
from runtime.compare.noise import Noise, measure
from runtime.compare.result_protocol import DetectionResult

Eager = TorchvisionEager | NetworkEager
Variant = Callable[[Eager, UInt8, float], DetectionResult]


def other_convolutions(eager: Eager, photo: UInt8, score_threshold: float) -> DetectionResult:
    """Without oneDNN, torch runs its own convolutions."""
    with without_onednn():
        return eager.run(photo, score_threshold).detections


def other_threads(eager: Eager, photo: UInt8, score_threshold: float) -> DetectionResult:
    """One thread in the place of several, or two in the place of one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        return eager.run(photo, score_threshold).detections
    finally:
        torch.set_num_threads(threads)


def second_in_batch(eager: Eager, photo: UInt8, score_threshold: float) -> DetectionResult:
    """The photo after its mirror image."""
    return eager.run_batch([photo[:, ::-1].copy(), photo], score_threshold)[1].detections


def in_double(eager: Eager, photo: UInt8, score_threshold: float) -> DetectionResult:
    """Our own network in float64.

    Raises:
        ValueError: torchvision's own model, which has no such run.
    """
    if not isinstance(eager, NetworkEager):
        raise ValueError("in_double: expected our own network")
    return eager.run_in_double(photo, score_threshold)


@contextlib.contextmanager
def without_onednn() -> Iterator[None]:
    """Run torch's convolutions without oneDNN, which changes only their rounding."""
    with warnings.catch_warnings():
        # torch warns about a GPU's TF32 whenever the flag is set.
        warnings.simplefilter("ignore")
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def model_noise(
    eager: Eager,
    photos: Mapping[str, UInt8],
    runs: Mapping[str, EagerRun],
    score_threshold: float,
    variants: Sequence[Variant] = (other_convolutions,),
) -> Noise:
    """How much rounding alone changes a model's results; one more eager run per variant and photo.

    Args:
        eager: the model.
        photos: by name.
        runs: of the eager model on the same photos, by name.
        score_threshold: of the runs.
        variants: what changes the rounding.
    """
    return measure(
        [
            [
                compare(runs[name].detections, variant(eager, photo, score_threshold), name)
                for name, photo in photos.items()
            ]
            for variant in variants
        ]
    )
