"""Time per photo and peak memory of calibrating R50-FPN at 800 x 1333, in a child process.

Exit status 1 when the peak is not below 4 GB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import photos, results
from export.onnx import export_onnx
from model.checkpoint import SpecOptions

MAX_BYTES = 4e9
SHORT, LONG = 800, 1333
_CHILD = """
import sys
from calib.quantize import main
status = main(sys.argv[1:])
# Not ru_maxrss, which starts at the peak of the parent process.
status_lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print("peak", int(status_lines["VmHWM"].split()[0]) * 1024)
sys.exit(status)
"""


def main() -> int:
    """Export, calibrate in a child, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    trained = sorted((photos.data_folder() / "coco" / "train2017").glob("*.jpg"))
    files = [*trained, *photos.val_photos()][: args.photos]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = SpecOptions(short_side=SHORT, long_side=LONG)
        export_onnx(photos.fitted_weights(), folder / "m.onnx", sizes, check_photo=None)
        command = [sys.executable, "-c", _CHILD, str(folder / "m.onnx"), *map(str, files)]
        command += ["-o", str(folder / "q.onnx"), "--threads", str(args.threads)]
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - started
    peak = float(done.stdout.split("peak ")[-1])
    per_photo = next(line for line in done.stdout.splitlines() if " s each" in line)
    rows = [[str(len(files)), per_photo, f"{seconds:.0f}", f"{peak / 1e9:.2f}"]]
    columns = ("photos", "calibration", "whole command, s", "peak, GB")
    body = results.table(columns, rows)
    data = {"peak_bytes": peak, "seconds": seconds, "photos": len(files)}
    title = "Calibration of R50-FPN at 800 x 1333"
    results.write(title, body, data, args.json, args.markdown)
    return 0 if peak < MAX_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
