"""All photos of a folder to one JSON Lines file; resumes when started again.

python examples/folder_job.py model.onnx photos results.jsonl
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime.cli.console import DONE, FAILED, print_error, run
from runtime.cli.photo_progress import PhotoProgress
from runtime.formats import jsonl
from runtime.predictor import Predictor
from runtime.sources.photos import find_photos


def job(argv: Sequence[str]) -> int:
    """Run the job; return the exit status, 1 when a photo could not be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", type=Path)
    parser.add_argument("folder")
    parser.add_argument("results", type=Path)
    args = parser.parse_args(argv)
    done = jsonl.read_names(args.results)
    photos = [photo for photo in find_photos([args.folder]) if str(photo) not in done]
    failed = 0
    progress = PhotoProgress(len(photos))
    with (
        Predictor.open(args.model, on_uncertified="ignore") as predictor,
        jsonl.Writer(args.results, resume=True) as writer,
    ):
        for photo, result in zip(photos, predictor.stream(photos), strict=True):
            if result.detections is None:
                print_error(result.error)
                failed += 1
            else:
                # When this returns the photo's line is complete, even if the process is killed.
                writer.add(str(photo), result.detections)
            progress.advance(result.seconds, failed=result.detections is None)
    progress.close()
    print(f"{len(photos) - failed} photos written, {len(done)} already there, {failed} failed")
    return FAILED if failed else DONE


if __name__ == "__main__":
    sys.exit(run(job, None))
