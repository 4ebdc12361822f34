"""One change to the token, as a value."""

from dataclasses import dataclass
from enum import StrEnum

from keycustody.config import KeySettings
from keycustody.custody.keys.evidence import label_of
from keycustody.formats.state import State


class Action(StrEnum):
    """What a step does."""

    MARK = "mark"
    DISCARD = "discard"
    CREATE = "create"
    RECORD = "record"
    STATE = "state"
    DESTROY = "destroy"
    ADOPT = "adopt"


@dataclass(frozen=True, slots=True)
class Step:
    """One change. `state`, `since` and `reason` are of a STATE step, `id` of a DISCARD, DESTROY or
    ADOPT step, whose objects are labelled `label`; `note` says what came of it, if that is not
    simply what was asked."""

    action: Action
    key: str = ""
    version: int = 0
    settings: KeySettings | None = None
    state: State = State.ACTIVE
    since: str = ""
    reason: str = ""
    id: bytes = b""
    label: str = ""
    done: bool = False
    note: str = ""

    @property
    def text(self) -> str:
        """What the step does, in a few words, and what came of it."""
        return f"{self._what()} ({self.note})" if self.note else self._what()

    def _what(self) -> str:
        label = label_of(self.key, self.version)
        what = f"{self.settings.algorithm} for {self.settings.purpose}" if self.settings else ""
        match self.action:
            case Action.MARK:
                return "mark the token as provisioned by keycustody"
            case Action.DISCARD:
                return f"discard {label} with CKA_ID {self.id.hex()}: left by an interrupted run"
            case Action.CREATE:
                return f"create {label}: {what}"
            case Action.RECORD:
                return f"record {label}: {what}, made by an interrupted run"
            case Action.STATE:
                return f"record {label} as {self.state}: {self.reason}"
            case Action.DESTROY:
                return f"destroy the objects of {label}"
            case Action.ADOPT:
                return f"adopt {label}: the key with CKA_ID {self.id.hex()}, {what}"
