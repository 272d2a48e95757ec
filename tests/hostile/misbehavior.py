"""A child that dies, is silent, exceeds its memory limit and prints, by number."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from tests.hostile.children import serve


def _misbehaves(_: Sequence[str]) -> Callable[[int], str]:
    def case(number: int) -> str:
        match number % 5:
            case 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            case 2:
                time.sleep(60)
            case 3:
                try:
                    bytearray(1 << 29)
                except MemoryError:
                    return "out of memory"
            case 4:
                os._exit(7)
        print("noise of a library")
        return f"case {number}"

    return case


if __name__ == "__main__":
    serve(sys.argv[1:], _misbehaves)
