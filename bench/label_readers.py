"""Masks in YOLO and labelme files, as Ultralytics, supervision and labelme read them.

python bench/label_readers.py [--against REV] [--scenes 100] [--labelme-python python3.12]

The readers run in two temporary environments, made by pip: one with ultralytics and OpenCV, which
takes PyTorch and supervision from this environment, and one with labelme, which needs Python 3.12.
Each mask is read at the photo's own size and compared with the mask that was written, pixel by
pixel. With `--against` the same masks are also written by the code of that revision. Exit status 1
if, of the masks in one piece, YOLO files keep less than 99 %, or labelme mask shapes keep less than
all masks.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import results
from bench.label_masks import KINDS
from bench.worktree import worktree
from model.arrays import Bool
from runtime.cli.console import Bar

BENCH = ROOT / "bench"
YOLO_PACKAGES = ("ultralytics==8.4.190", "opencv-python-headless==5.0.0.93")
LABELME_PACKAGES = ("labelme==7.9.1",)
MIN_YOLO, MIN_LABELME_MASK = 0.99, 1.0
READERS = {
    "ultralytics": "Ultralytics",
    "supervision": "supervision",
    "labelme": "labelme polygons",
    "labelme_mask": "labelme mask shapes",
}
PHOTOS = {"rings": 10, "thin": 10, "border": 5, "huge": 3, "diagonals": 10, "pieces": 10}


@dataclass(slots=True)
class Count:
    """How many masks a reader gave back pixel by pixel, and the sum of all IoUs."""

    masks: int = 0
    equal: int = 0
    iou: float = 0.0

    def add(self, written: Bool, read: Bool) -> None:
        """Count one mask."""
        self.masks += 1
        self.equal += bool(np.array_equal(written, read))
        either = int((written | read).sum())
        self.iou += int((written & read).sum()) / either if either else 1.0


@dataclass(slots=True)
class Row:
    """The masks of one kind that are, or are not, in one piece; counts by tree and reader."""

    kind: str
    is_one_piece: bool
    masks: int = 0
    counts: dict[str, dict[str, Count]] = field(default_factory=dict)

    def add(self, tree: str, reader: str, written: Bool, read: Bool) -> None:
        """Count one mask of one reader."""
        self.counts.setdefault(tree, {}).setdefault(reader, Count()).add(written, read)

    @property
    def passed(self) -> bool:
        """Whether this tree's files keep the limits."""
        now = self.counts["now"]
        least = min(now[reader].equal for reader in ("ultralytics", "supervision"))
        return (
            now["labelme_mask"].equal >= MIN_LABELME_MASK * self.masks
            and (not self.is_one_piece or least >= MIN_YOLO * self.masks)
        )  # fmt: skip


def main() -> int:
    """Compare all masks; status 1 when a limit is not kept."""
    args = _arguments()
    rows: dict[tuple[str, bool], Row] = {}
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trees = {"now": ROOT}
        if args.against is not None:
            trees["before"] = stack.enter_context(worktree(args.against))
        yolo_python = _environment(work / "yolo", Path(sys.executable), YOLO_PACKAGES, True)
        labelme_python = _environment(
            work / "labelme", _python(args.labelme_python), LABELME_PACKAGES, False
        )
        bar = Bar(len(KINDS) * len(trees), "kinds")
        for kind in KINDS:
            photos = _write_photos(work / kind, kind, args.scenes)
            for tree, path in trees.items():
                folder = work / kind / tree
                _write_labels(path, work / kind, folder)
                _read(yolo_python, "read_yolo.py", folder)
                _read(labelme_python, "read_labelme.py", folder)
                for photo, masks in photos.items():
                    _compare(rows, kind, tree, folder, photo, masks)
                bar.advance()
    _report(list(rows.values()), args)
    return 0 if all(row.passed for row in rows.values()) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", metavar="REV", help="commit to compare with")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--labelme-python", default="python3.12", help="Python 3.12 or newer")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _python(name: str) -> Path:
    shown = "import sys; print(sys.executable if sys.version_info >= (3, 12) else '')"
    try:
        done = subprocess.run([name, "-c", shown], capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(f"error: --labelme-python {name}: {error.strerror}") from error
    if not done.stdout.strip():
        raise SystemExit(f"error: --labelme-python {name}: expected Python 3.12 or newer")
    return Path(done.stdout.strip())


def _environment(folder: Path, python: Path, packages: Sequence[str], shares: bool) -> Path:
    """Make an environment; one that shares sees this one's packages after its own."""
    subprocess.run([str(python), "-m", "venv", str(folder)], check=True)
    inside = folder / "bin" / "python"
    if shares:
        site = next((folder / "lib").glob("python*/site-packages"))
        shared = [path for path in sys.path if path.endswith("site-packages")]
        (site / "shared.pth").write_text("\n".join(shared) + "\n")
    # What ultralytics needs besides is shared.
    options = ["--no-deps"] if shares else []
    pip = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, *packages], check=True)
    return inside


def _write_photos(folder: Path, kind: str, scenes: int) -> dict[str, Bool]:
    """Masks and blank photos, `masks` and `images`; returns the masks by photo."""
    for name in ("masks", "images"):
        (folder / name).mkdir(parents=True)
    photos = {}
    for index, masks in enumerate(KINDS[kind](scenes if kind == "scenes" else PHOTOS[kind])):
        stem = f"{index:03d}"
        photos[stem] = masks
        target = folder / "masks" / f"{stem}.npz"
        np.savez(target, bits=np.packbits(masks), shape=np.array(masks.shape))
        Image.new("L", masks.shape[:0:-1]).convert("RGB").save(folder / "images" / f"{stem}.png")
    return photos


def _write_labels(tree: Path, source: Path, folder: Path) -> None:
    """The label files of one tree's code, in a folder of their own."""
    folder.mkdir()
    for name in ("masks", "images"):
        (folder / name).symlink_to(source / name, target_is_directory=True)
    _child([sys.executable, "-P", str(BENCH / "label_files.py"), str(folder)], tree)


def _read(python: Path, script: str, folder: Path) -> None:
    _child([str(python), "-P", str(BENCH / script), str(folder), str(folder / f"{script}.npz")])


def _child(command: Sequence[str], tree: Path | None = None) -> None:
    environment: Mapping[str, str] = {
        **os.environ,
        "PYTHONPATH": str(tree or ""),
        "YOLO_CONFIG_DIR": tempfile.gettempdir(),
        "YOLO_OFFLINE": "1",
        "QT_QPA_PLATFORM": "offscreen",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        last_lines = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise SystemExit(f"error: {' '.join(command[2:3])} failed: {last_lines}")


def _compare(
    rows: dict[tuple[str, bool], Row],
    kind: str,
    tree: str,
    folder: Path,
    photo: str,
    masks: Bool,
) -> None:
    one_piece = [ndimage.label(mask, np.ones((3, 3)))[1] == 1 for mask in masks]
    for is_one in sorted(set(one_piece), reverse=True):
        rows.setdefault((kind, is_one), Row(kind, is_one))
    if tree == "now":
        for is_one in one_piece:
            rows[kind, is_one].masks += 1
    for script in ("read_yolo.py", "read_labelme.py"):
        with np.load(folder / f"{script}.npz") as file:
            for name in file.files:
                reader, of_photo = name.split("/")
                if of_photo != photo:
                    continue
                read = np.unpackbits(file[name], count=masks.size).reshape(masks.shape) > 0
                for written, seen, is_one in zip(masks, read, one_piece, strict=True):
                    rows[kind, is_one].add(tree, reader, written, seen)


def _report(rows: Sequence[Row], args: argparse.Namespace) -> None:
    trees = {"now": "now", **({"before": args.against} if args.against else {})}
    names = [
        (reader, tree)
        for reader in READERS
        for tree in reversed(trees)
        if any(reader in row.counts.get(tree, {}) for row in rows)
    ]
    columns = ["masks of", "pieces", "masks"]
    columns += [f"{READERS[reader]} {trees[tree]}" for reader, tree in names]
    equal, iou = [], []
    for row in rows:
        head = [row.kind, "one" if row.is_one_piece else "several", row.masks]
        counts = [row.counts[tree][reader] for reader, tree in names]
        equal.append([*head, *(f"{100 * c.equal / c.masks:.1f} %" for c in counts)])
        iou.append([*head, *(f"{c.iou / c.masks:.4f}" for c in counts)])
    packages = ", ".join((*YOLO_PACKAGES, *LABELME_PACKAGES))
    parts = [
        f"{packages}. Masks that a reader gives back pixel by pixel:",
        results.table(columns, equal),
        "Mean IoU of the mask that was written and the one that was read:",
        results.table(columns, iou),
        f"Limits: {100 * MIN_YOLO:.0f} % of masks in one piece for YOLO, all masks for labelme "
        "mask shapes.",
    ]
    data = {"rows": [{**asdict(row), "passed": row.passed} for row in rows]}
    results.write("Label files", "\n\n".join(parts), data, args.json, args.markdown)


if __name__ == "__main__":
    sys.exit(main())
