"""A session that answers what it is told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runtime.artifacts.metadata import Artifact
from runtime.sessions.session import Inputs, Outputs, Session

Change = Callable[[Outputs], Outputs]


@dataclass
class ChangedSession:
    """Another session, whose answers are changed on the way; they are copies."""

    session: Session
    change: Change

    @property
    def artifact(self) -> Artifact:
        return self.session.artifact

    def run(self, inputs: Inputs) -> Outputs:
        answer = self.session.run(inputs)
        return self.change({name: values.copy() for name, values in answer.items()})

    def close(self) -> None:
        self.session.close()
