"""Threads, opening and closing, and many calls on one predictor, in a process of their own.

python -m tests.reliability.endurance threads|cycles|soak MODEL COUNT

One line of JSON on stdout; `progress N` lines on stderr. torch is not loaded, so that the memory
that is measured is the runtime's.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.detections import Detections
from runtime.predictor import Predictor

UInt8 = NDArray[np.uint8]
THREADS = 8
# Small photos of every shape that the canvas takes, again and again: the arena must settle.
_SIZES = [(48, 64), (64, 96), (96, 64), (31, 33), (7, 60), (80, 80), (40, 90), (3, 3)]
_SAMPLES = 200
Result = dict[str, object]


def photos() -> list[UInt8]:
    """Coarse noise with detections in it; uint8 [h, w, 3] each."""
    rng = np.random.default_rng(11)
    pictures = []
    for height, width in _SIZES * 2:
        coarse = rng.integers(0, 256, (height // 12 + 1, width // 12 + 1, 3)).astype(np.uint8)
        pictures.append(np.kron(coarse, np.ones((12, 12, 1), np.uint8))[:height, :width])
    return pictures


def threads(path: Path, calls: int) -> Result:
    """As many calls in each of 8 threads on one predictor, against the results of one."""
    pictures = photos()
    with Predictor.open(path, threads=1, on_uncertified="ignore") as predictor:
        expected = [_bytes(predictor.predict(picture)) for picture in pictures]

        def work(thread: int) -> int:
            different = 0
            for call in range(calls):
                which = (call + thread) % len(pictures)
                different += _bytes(predictor.predict(pictures[which])) != expected[which]
                if thread == 0:
                    _progress(call + 1, calls)
            return different

        with ThreadPoolExecutor(THREADS) as pool:
            different = sum(pool.map(work, range(THREADS)))
    return {
        "calls": calls * THREADS,
        "different": different,
        "distinct results": len(set(expected)),
    }


def cycles(path: Path, count: int) -> Result:
    """Open, predict, close; memory, threads and open files after each."""
    picture, states = photos()[0], []
    for cycle in range(count):
        with Predictor.open(path, threads=2, on_uncertified="ignore") as predictor:
            predictor.predict(picture)
        del predictor
        gc.collect()
        states.append(_state())
        _progress(cycle + 1, count)
    settled = states[len(states) // 5 :]
    return {
        "cycles": count,
        "rss_growth_mb": settled[-1][0] - settled[0][0],
        "threads": sorted({state[1] for state in settled}),
        "files": sorted({state[2] for state in settled}),
    }


def soak(path: Path, calls: int) -> Result:
    """Calls, results and all; memory sampled along the way."""
    pictures, samples, detections = photos(), [], 0
    every = max(calls // _SAMPLES, 1)
    with Predictor.open(path, threads=1, on_uncertified="ignore") as predictor:
        for call in range(calls):
            result = predictor.predict(pictures[call % len(pictures)])
            detections += len(result)
            result.rle()
            if call % 16 == 0:
                predictor.predict(pictures[:3], batch_size=3)
            if (call + 1) % every == 0:
                samples.append(_state()[0])
                _progress(call + 1, calls)
    settled = np.array(samples[len(samples) // 10 :])
    at = np.linspace(0.0, 1.0, len(settled))
    return {
        "calls": calls,
        "detections": detections,
        "rss_mb": settled[-1],
        "slope_mb": float(np.polyfit(at, settled, 1)[0]),
        "spread_mb": float(settled.max() - settled.min()),
        "samples_mb": [round(s, 2) for s in samples[:: max(len(samples) // 40, 1)]],
    }


JOBS: dict[str, Callable[[Path, int], Result]] = {
    "threads": threads,
    "cycles": cycles,
    "soak": soak,
}


def _bytes(detections: Detections) -> bytes:
    values = asdict(detections)
    return b"|".join(
        value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
        for _, value in sorted(values.items())
    )


def _state() -> tuple[float, int, int]:
    """Resident memory in MB, threads, open files."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    tasks, files = os.listdir("/proc/self/task"), os.listdir("/proc/self/fd")
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(tasks), len(files)


def _progress(done: int, total: int) -> None:
    if done % max(total // 100, 1) == 0:
        print(f"progress {done}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(json.dumps(JOBS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
