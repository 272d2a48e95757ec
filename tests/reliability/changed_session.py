"""A session whose outputs a test changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runtime.artifacts.metadata import Artifact
from runtime.sessions.session import Inputs, Outputs, Session

Change = Callable[[Outputs], Outputs]


@dataclass
class ChangedSession:
    """Another session's outputs, copied and changed. Closing it leaves the other one open."""

    session: Session
    change: Change

    @property
    def artifact(self) -> Artifact:
        return self.session.artifact

    def run(self, inputs: Inputs) -> Outputs:
        outputs = self.session.run(inputs)
        return self.change({name: values.copy() for name, values in outputs.items()})

    def close(self) -> None:
        pass
