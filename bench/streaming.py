"""Throughput of `Predictor.stream` and its upper bound, on one model: JSON on stdout.

Three passes over the same photo files run in turn, each at least `--seconds` long, every other time
in the opposite order:

- bare: the network's session alone, one thread, canvases ready in memory
- serial: `predict(file).rle()`, one photo after the other; gives the CPU time per photo
- stream: `stream(files)`, with run lengths encoded in parallel with the network

The bound is the smaller of bare's rate and cores / (CPU seconds per photo). A shared machine drifts
by a third within minutes, so the stream is compared with the bound of the same repeat.
`bench/runtime.py` starts this program as a process of its own, without PyTorch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime.predictor import Predictor
from runtime.preprocessing.canvas import to_canvas
from runtime.sessions.open import open_session
from runtime.sessions.session import Session
from runtime.sources.photos import decode
from runtime.stream import Streamed

# Canvases of a large model are 13 MB each; the bare session cycles through a few.
_CANVASES = 8


@dataclass(frozen=True, slots=True)
class Streaming:
    """Medians over the repeats; rates in photos per second.

    Attributes:
        photos: number of one pass.
        cores: that this process may use.
        bare_per_s: of the session alone.
        cpu_s_per_photo: of the serial pass.
        serial_per_s: of `predict` and `rle`.
        stream_per_s: of `stream`.
        all_bare_per_s: of each repeat.
        all_stream_per_s: of each repeat.
        fractions: of the bound that the stream reached in each repeat.
    """

    photos: int
    cores: int
    bare_per_s: float
    cpu_s_per_photo: float
    serial_per_s: float
    stream_per_s: float
    all_bare_per_s: list[float]
    all_stream_per_s: list[float]
    fractions: list[float]

    @property
    def cores_per_s(self) -> float:
        """The rate if no core ever waited."""
        return self.cores / self.cpu_s_per_photo

    @property
    def bound_per_s(self) -> float:
        """Upper bound of the rate with one network thread."""
        return min(self.bare_per_s, self.cores_per_s)

    @property
    def ratio(self) -> float:
        """Median fraction of the bound that the stream reaches."""
        return statistics.median(self.fractions)


class _Passes:
    """The three passes, over one open session."""

    def __init__(self, session: Session, files: Sequence[Path], workers: int) -> None:
        self._session = session
        self._predictor = Predictor(session, on_uncertified="ignore")
        self._files = files
        self._workers = workers
        rule = session.artifact.spec.preprocess
        canvases = [to_canvas([decode(file)], rule) for file in files[:_CANVASES]]
        self._inputs = [{"images": c.images, "image_hw": c.image_hw} for c in canvases]

    def bare(self, count: int) -> None:
        """The network alone."""
        for inputs in itertools.islice(itertools.cycle(self._inputs), count):
            self._session.run(inputs)

    def serial(self, count: int) -> None:
        """One photo after the other."""
        for file in self._first(count):
            self._predictor.predict(file).rle()

    def stream(self, count: int) -> None:
        """All stages at once."""
        done = 0
        for result in self._predictor.stream(
            self._first(count), workers=self._workers, then=_run_lengths
        ):
            if result.error is not None:
                raise result.error
            done += 1
        if done != count:
            raise SystemExit(f"error: the stream returned {done} of {count} photos")

    def _first(self, count: int) -> Iterator[Path]:
        return itertools.islice(itertools.cycle(self._files), count)


def _run_lengths(result: Streamed) -> int:
    assert result.detections is not None
    return len(result.detections.rle())


def measure(
    model: Path, files: Sequence[Path], repeats: int, seconds: float, cores: int, workers: int
) -> Streaming:
    """Run all three in turn.

    Args:
        model: an ONNX file for any canvas.
        files: photos; each pass uses all at least once.
        repeats: number of passes of each kind.
        seconds: minimum length of a pass of the bare session.
        cores: that the process may use.
        workers: threads of the stream in addition to the network's.
    """
    _limit_to(cores)
    passes = _Passes(open_session(model, threads=1), files, workers)
    passes.serial(2)
    one_s = _timed(passes.bare, 2)[0] / 2
    count = max(len(files), math.ceil(seconds / one_s))
    rates: dict[str, list[float]] = {"bare": [], "serial": [], "stream": []}
    cpu_s: list[float] = []
    for repeat in range(repeats):
        for name in list(rates)[:: 1 if repeat % 2 == 0 else -1]:
            wall_s, used_s = _timed(getattr(passes, name), count)
            rates[name].append(count / wall_s)
            if name == "serial":
                cpu_s.append(used_s / count)
    medians = {name: statistics.median(of_passes) for name, of_passes in rates.items()}
    by_repeat = zip(rates["stream"], rates["bare"], cpu_s, strict=True)
    return Streaming(
        count,
        cores,
        medians["bare"],
        statistics.median(cpu_s),
        medians["serial"],
        medians["stream"],
        [round(rate, 3) for rate in rates["bare"]],
        [round(rate, 3) for rate in rates["stream"]],
        [round(stream / min(bare, cores / used), 3) for stream, bare, used in by_repeat],
    )


def _limit_to(cores: int) -> None:
    """Limit this process, and all its threads, to so many cores."""
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("error: this system cannot limit a process to some cores; run it on Linux")
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < cores:
        sys.exit(f"error: --cores {cores}: this process may use {len(allowed)}")
    os.sched_setaffinity(0, allowed[:cores])


def _timed(run: Callable[[int], None], count: int) -> tuple[float, float]:
    """Wall and CPU seconds of a pass."""
    used, started = time.process_time(), time.perf_counter()
    run(count)
    return time.perf_counter() - started, time.process_time() - used


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path, help="folder of JPEG files")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    files = sorted(args.photos.glob("*.jpg"))
    if not files:
        parser.error(f"{args.photos}: no *.jpg in it")
    streaming = measure(args.model, files, args.repeats, args.seconds, args.cores, args.workers)
    print(json.dumps(asdict(streaming)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
