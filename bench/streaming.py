"""How near `Predictor.stream` comes to its bound, on one model: JSON on stdout.

Three ways to work off the same photo files take turns, each at least `--seconds` long, every other
turn in the opposite order:

- bare: the network's session alone, one thread, canvases ready in memory
- serial: `predict(file).rle()`, one photo after the other; its CPU time is what a photo costs
- stream: `stream(files)`, run lengths made beside the network

The bound is the smaller of bare's rate and cores / (CPU seconds per photo). A shared machine drifts
by a third within minutes, so what the stream reaches is compared with the bound of its own turn. A
process of its own, without PyTorch: `bench/runtime.py` starts it.
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

# Canvases of a large model are 13 MB each; the bare session may cycle through a few.
_CANVASES = 8


@dataclass(frozen=True, slots=True)
class Streaming:
    """Medians over the turns, photos per second where nothing else is said.

    Attributes:
        photos: of one pass.
        cores: that this process may use.
        bare_per_s: of the session alone.
        cpu_s_per_photo: processor time of a photo, one after the other.
        serial_per_s: of `predict` and `rle`.
        stream_per_s: of `stream`.
        all_bare_per_s: of each turn.
        all_stream_per_s: of each turn.
        shares: how much of its bound the stream reached in each turn.
    """

    photos: int
    cores: int
    bare_per_s: float
    cpu_s_per_photo: float
    serial_per_s: float
    stream_per_s: float
    all_bare_per_s: list[float]
    all_stream_per_s: list[float]
    shares: list[float]

    @property
    def cores_per_s(self) -> float:
        """What the cores could do if none ever waited."""
        return self.cores / self.cpu_s_per_photo

    @property
    def bound_per_s(self) -> float:
        """No way of working with one network thread can be faster."""
        return min(self.bare_per_s, self.cores_per_s)

    @property
    def ratio(self) -> float:
        """How much of the bound the stream reaches, the median of the turns."""
        return statistics.median(self.shares)


class _Ways:
    """The three ways over the same opened session."""

    def __init__(self, session: Session, files: Sequence[Path], workers: int) -> None:
        self._session = session
        self._predictor = Predictor(session, on_uncertified="ignore")
        self._files = files
        self._workers = workers
        rule = session.artifact.spec.preprocess
        canvases = [to_canvas([decode(file)], rule) for file in files[:_CANVASES]]
        self._feeds = [{"images": c.images, "image_hw": c.image_hw} for c in canvases]

    def bare(self, count: int) -> None:
        """The network alone."""
        for feed in itertools.islice(itertools.cycle(self._feeds), count):
            self._session.run(feed)

    def serial(self, count: int) -> None:
        """One photo after the other."""
        for file in self._some(count):
            self._predictor.predict(file).rle()

    def stream(self, count: int) -> None:
        """All stages at once."""
        done = 0
        for result in self._predictor.stream(
            self._some(count), workers=self._workers, then=_run_lengths
        ):
            if result.error is not None:
                raise result.error
            done += 1
        if done != count:
            raise SystemExit(f"error: the stream answered {done} of {count} photos")

    def _some(self, count: int) -> Iterator[Path]:
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
        files: photos, each pass goes over all at least once.
        repeats: turns, a pass of each way in each.
        seconds: a pass of the bare session takes at least so long.
        cores: that the process is held to.
        workers: threads of the stream beside the network's.
    """
    _hold_to(cores)
    ways = _Ways(open_session(model, threads=1), files, workers)
    ways.serial(2)
    one_s = _timed(ways.bare, 2)[0] / 2
    count = max(len(files), math.ceil(seconds / one_s))
    rates: dict[str, list[float]] = {"bare": [], "serial": [], "stream": []}
    cpu_s: list[float] = []
    for turn in range(repeats):
        for name in list(rates)[:: 1 if turn % 2 == 0 else -1]:
            wall_s, used_s = _timed(getattr(ways, name), count)
            rates[name].append(count / wall_s)
            if name == "serial":
                cpu_s.append(used_s / count)
    middle = {name: statistics.median(found) for name, found in rates.items()}
    turns = zip(rates["stream"], rates["bare"], cpu_s, strict=True)
    return Streaming(
        count,
        cores,
        middle["bare"],
        statistics.median(cpu_s),
        middle["serial"],
        middle["stream"],
        [round(rate, 3) for rate in rates["bare"]],
        [round(rate, 3) for rate in rates["stream"]],
        [round(stream / min(bare, cores / used), 3) for stream, bare, used in turns],
    )


def _hold_to(cores: int) -> None:
    """Let this process, and all its threads, use no more cores."""
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("error: this system cannot hold a process to some cores; run it on Linux")
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < cores:
        sys.exit(f"error: --cores {cores}: this process may use {len(allowed)}")
    os.sched_setaffinity(0, allowed[:cores])


def _timed(way: Callable[[int], None], count: int) -> tuple[float, float]:
    """Wall and processor seconds of a pass."""
    used, started = time.process_time(), time.perf_counter()
    way(count)
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
    found = measure(args.model, files, args.repeats, args.seconds, args.cores, args.workers)
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
