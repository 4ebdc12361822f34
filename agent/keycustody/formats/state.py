"""State records: what is known of one key version, stored beside it on the token.

docs/format.md, section 7. Agent only: it needs msgspec, which the client does not have.
"""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from keycustody.errors import KeyNotTrusted

MAX_BYTES = 4096


class State(StrEnum):
    """The states of a version, from best to worst; the worst that is recorded wins."""

    ACTIVE = "active"
    RETIRED = "retired"
    REVOKED = "revoked"
    DESTROYED = "destroyed"

    @property
    def rank(self) -> int:
        """How bad it is, 0 for `active`."""
        return list(State).index(self)


class StateRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """One record. All but `state`, `time` and `reason` must agree among records of a version."""

    v: int
    name: str
    version: Annotated[int, Meta(ge=1, le=2**32 - 1)]
    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    purpose: str
    algorithm: str
    public_sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]
    witness: Annotated[str, Meta(pattern=r"^([0-9a-f]{144})?\Z")]
    state: State
    time: Annotated[str, Meta(pattern=r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z\Z")]
    reason: str = ""

    @property
    def subject(self) -> tuple[str, int, str, str, str, str, str]:
        """What the record is about."""
        return (
            self.name,
            self.version,
            self.id,
            self.purpose,
            self.algorithm,
            self.public_sha256,
            self.witness,
        )


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(StateRecord)


def encode(record: StateRecord) -> bytes:
    """Return the one encoding of a record."""
    return _ENCODER.encode(record)


def decode(data: bytes) -> StateRecord:
    """Return the record; `KeyNotTrusted` unless `data` is exactly its one encoding."""
    try:
        record = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KeyNotTrusted(f"A state record on the token is malformed: {error}.") from error
    if record.v != 1 or len(data) > MAX_BYTES or encode(record) != data:
        raise KeyNotTrusted("A state record on the token is not in its one valid encoding.")
    return record


def worst(records: list[StateRecord]) -> StateRecord:
    """Return the record that counts; `KeyNotTrusted` if they speak of different things."""
    if len({record.subject for record in records}) != 1:
        raise KeyNotTrusted("The state records of one version contradict each other.")
    return max(records, key=lambda record: (record.state.rank, record.time))
