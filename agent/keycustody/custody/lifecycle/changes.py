"""What an operator may ask for: values, checked when they are made.

They raise `InvalidRequest` for what no plan could ever do.
"""

from dataclasses import dataclass
from typing import ClassVar

from keycustody.errors import InvalidRequest
from keycustody.formats.names import check_key_name, check_version

_REASON_CHARACTERS = 500
_ID_BYTES = 255


@dataclass(frozen=True, slots=True)
class Apply:
    """Make what is declared and missing, finish what was interrupted, retire what was
    superseded."""

    operation: ClassVar[str] = "apply"


@dataclass(frozen=True, slots=True)
class Rotate:
    """Make the next version of one key, or, without a name, of every key that is due."""

    operation: ClassVar[str] = "rotate"
    name: str = ""

    def __post_init__(self) -> None:
        if self.name:
            check_key_name(self.name)


@dataclass(frozen=True, slots=True)
class Retire:
    """Let a version verify, unwrap and decrypt only."""

    operation: ClassVar[str] = "retire"
    name: str
    version: int

    def __post_init__(self) -> None:
        check_key_name(self.name)
        check_version(self.version)


@dataclass(frozen=True, slots=True)
class Revoke:
    """Let a version do nothing any more."""

    operation: ClassVar[str] = "revoke"
    name: str
    version: int
    reason: str

    def __post_init__(self) -> None:
        check_key_name(self.name)
        check_version(self.version)
        if not 1 <= len(self.reason) <= _REASON_CHARACTERS:
            raise InvalidRequest(f"A reason has 1 to {_REASON_CHARACTERS} characters.")


@dataclass(frozen=True, slots=True)
class Destroy:
    """Remove the objects of a revoked version for good. `confirm` repeats the key's name."""

    operation: ClassVar[str] = "destroy"
    name: str
    version: int
    confirm: str

    def __post_init__(self) -> None:
        check_key_name(self.name)
        check_version(self.version)
        if self.confirm != self.name:
            raise InvalidRequest(
                f"What is destroyed cannot be had back: confirm it by the key's name, {self.name}."
            )


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take a key that was on the token before us, by its `CKA_ID`, under a declared name;
    `version` 0 is the next one."""

    operation: ClassVar[str] = "adopt"
    name: str
    id: bytes
    version: int = 0

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if self.version:
            check_version(self.version)
        if not 1 <= len(self.id) <= _ID_BYTES:
            raise InvalidRequest(f"A CKA_ID has 1 to {_ID_BYTES} bytes.")


Change = Apply | Rotate | Retire | Revoke | Destroy | Adopt
