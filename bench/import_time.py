"""Time of `import runtime.predictor` in a fresh interpreter, and of NumPy as its lower bound.

Both are imported in turn, each time by an interpreter of its own, with compiled bytecode. Exit
status 1 when the median is not below 150 ms, or a library is loaded that only other commands need.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import results

MAX_MS = 150.0
MODULES = ("runtime.predictor", "numpy")
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "cv2", "matplotlib", "pycocotools")
_CHILD = """
import json, sys, time
started = time.perf_counter()
__import__(sys.argv[1])
spent = 1e3 * (time.perf_counter() - started)
print(json.dumps([spent, [name for name in sys.argv[2:] if name in sys.modules]]))
"""


def main() -> int:
    """Measure; status 1 when the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    for module in MODULES:  # the first import writes the bytecode
        _import(module)
    spent: dict[str, list[float]] = {module: [] for module in MODULES}
    loaded: set[str] = set()
    for _ in range(args.repeats):
        for module in MODULES:
            ms, heavy = _import(module)
            spent[module].append(ms)
            loaded.update(heavy)
    medians = {module: statistics.median(times) for module, times in spent.items()}
    cells = [
        [f"`import {m}`", f"{medians[m]:.0f}", f"{min(spent[m]):.0f}", f"{max(spent[m]):.0f}"]
        for m in MODULES
    ]
    table = results.table(("", "median ms", "min", "max"), cells)
    is_met = medians[MODULES[0]] < MAX_MS and not loaded
    note = (
        f"{args.repeats} interpreters each, in turn. Loaded of {', '.join(HEAVY)}: "
        f"{', '.join(sorted(loaded)) or 'none'}. Aim: below {MAX_MS:.0f} ms and none loaded: "
        f"{'met' if is_met else 'MISSED'}."
    )
    data = {"milliseconds": spent, "loaded": sorted(loaded)}
    results.write("Importing the runtime", f"{note}\n\n{table}", data, args.json, args.markdown)
    return 0 if is_met else 1


def _import(module: str) -> tuple[float, list[str]]:
    """Milliseconds, and which of `HEAVY` are loaded afterwards."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, module, *HEAVY],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    ms, heavy = json.loads(done.stdout)
    return float(ms), list(heavy)


if __name__ == "__main__":
    sys.exit(main())
