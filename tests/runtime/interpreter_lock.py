"""Whether a C kernel releases the interpreter's lock, whatever else the machine does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

TRIES, LEAST = 50, 5


def is_released_by(call: Callable[[], object]) -> bool:
    """Whether another thread runs several times during one call.

    While a lock is held throughout, the other thread runs only as the call begins and ends. On a
    busy machine it may not run during a call that releases the lock: several calls are tried.
    """
    moments, stop = [], threading.Event()

    def watch() -> None:
        while not stop.wait(0.0005):
            moments.append(time.perf_counter())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(TRIES):
            started = time.perf_counter()
            call()
            ended = time.perf_counter()
            if sum(started < moment < ended for moment in moments.copy()) >= LEAST:
                return True
        return False
    finally:
        stop.set()
        watcher.join()
