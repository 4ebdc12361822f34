"""State records: what is known of one key version, stored beside it on the token.

docs/format.md, section 7. Agent only: it needs msgspec, which the client does not have. A key that
keycustody made has records of format 1; one that was on the token before us and was adopted has
records of format 2, which say under which label it is, what about it is weaker, and its public key.
"""

from collections.abc import Sequence
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
    """One record. All but `state`, `time`, `reason` and `witness` must agree among the records of
    one key version and `CKA_ID`."""

    v: int
    name: str
    version: Annotated[int, Meta(ge=1, le=2**32 - 1)]
    id: Annotated[str, Meta(pattern=r"^([0-9a-f]{2}){1,255}\Z")]
    purpose: str
    algorithm: str
    public_sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]
    witness: Annotated[str, Meta(pattern=r"^([0-9a-f]{144})?\Z")]
    state: State
    time: Annotated[str, Meta(pattern=r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z\Z")]
    reason: str = ""

    @property
    def adopted(self) -> "Adoption | None":
        """What is known of a key that was not made by keycustody; None for one that was."""
        return None

    @property
    def subject(self) -> tuple[object, ...]:
        """What the record is about."""
        return (
            self.v,
            self.name,
            self.version,
            self.id,
            self.purpose,
            self.algorithm,
            self.public_sha256,
            self.adopted,
        )


class Adoption(Struct, frozen=True):
    """A key that was on the token before us: its own `CKA_LABEL`, what about its private object is
    weaker than in ours (`NAME=value`, sorted), and its DER SubjectPublicKeyInfo."""

    label: str
    weaker: tuple[str, ...]
    public_key: bytes


class AdoptedRecord(StateRecord, frozen=True, forbid_unknown_fields=True):
    """A record of an adopted key."""

    label: str = ""
    weaker: tuple[str, ...] = ()
    public_key: Annotated[str, Meta(pattern=r"^([0-9a-f]{2})+\Z")] = ""

    @property
    def adopted(self) -> Adoption:
        """What makes it another than ours."""
        return Adoption(self.label, self.weaker, bytes.fromhex(self.public_key))


_ENCODER = msgspec.json.Encoder()
#: The format is the first member, so that the first bytes say who can read the rest.
_DECODERS: dict[bytes, msgspec.json.Decoder[StateRecord]] = {
    b'{"v":1,': msgspec.json.Decoder(StateRecord),
    b'{"v":2,': msgspec.json.Decoder(AdoptedRecord),
}
_OUR_ID_DIGITS = 32


def encode(record: StateRecord) -> bytes:
    """Return the one encoding of a record."""
    return _ENCODER.encode(record)


def decode(data: bytes) -> StateRecord:
    """Return the record; `KeyNotTrusted` unless `data` is exactly its one encoding."""
    decoder = _DECODERS.get(data[:7])
    if decoder is None:
        raise KeyNotTrusted("A state record on the token is of a format that is not known.")
    if len(data) > MAX_BYTES:
        raise KeyNotTrusted("A state record on the token is too long to be one.")
    try:
        record = decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # Without the parser's words, which quote what somebody put there.
        raise KeyNotTrusted("A state record on the token is malformed.") from error
    if encode(record) != data or not _consistent(record):
        raise KeyNotTrusted("A state record on the token is not in its one valid encoding.")
    return record


def _consistent(record: StateRecord) -> bool:
    adopted = record.adopted
    if adopted is None:
        return len(record.id) == _OUR_ID_DIGITS
    return list(adopted.weaker) == sorted(set(adopted.weaker)) and bool(record.public_sha256)


def worst(records: Sequence[StateRecord]) -> StateRecord:
    """Return the record that counts, the oldest of the worst; `KeyNotTrusted` if they speak of
    different things."""
    if len({record.subject for record in records}) != 1:
        raise KeyNotTrusted("The state records of one version contradict each other.")
    return min(records, key=lambda record: (-record.state.rank, record.time, record.reason))
