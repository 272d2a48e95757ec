"""Functions that fail, for `monkeypatch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def raising(error: BaseException) -> Callable[..., Any]:
    """A function that raises for any arguments."""

    def function(*_: object, **__: object) -> Any:
        raise error

    return function
