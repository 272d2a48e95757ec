"""matplotlib figures: its import, which is optional, and how figures are set up and saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import MissingDependencyError
from runtime.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, LIGHT_BLUE, GREEN, RED = "#1f5fa8", "#d9822b", "#8fb8de", "#5b8c5a", "#b3261e"


def require_matplotlib(what: str, alternative: str = "") -> None:
    """Check that figures can be drawn.

    Args:
        what: the figure or option that needs matplotlib, for the message.
        alternative: appended to the message.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} needs matplotlib, which is not installed; pip install 'maskport[eval]'"
            + alternative
        ) from error


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    """A figure, sides in inches, and its axes; an array of axes for several columns.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    require_matplotlib("a figure")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG atomically.

    Raises:
        ArtifactError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
