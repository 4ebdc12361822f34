"""Audit records: one line of JSON each, chained by hash.

docs/format.md, section 8. Agent only: it needs msgspec, which the client does not have. The chain
is computed here and written by `keycustody.custody.audit`.
"""

import hashlib

import msgspec
from msgspec import Struct

from keycustody.errors import AuditChainBroken

MAX_LINE_BYTES = 1024 * 1024
GENESIS = "0" * 64


class AuditRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """One request, or one step of an administrative command. Holds no secret."""

    v: int
    seq: int
    time: str
    request: str
    principal: str
    via: str
    operation: str
    key: str
    version: int
    algorithm: str
    context: dict[str, str]
    items: list[str]
    rules: str
    grant: str
    result: str
    detail: str
    microseconds: int
    prev: str


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(AuditRecord)


def encode(record: AuditRecord) -> bytes:
    """Return the line of a record, without its line end."""
    return _ENCODER.encode(record)


def line_hash(line: bytes) -> str:
    """Return what the next record's `prev` must be."""
    return hashlib.sha256(line).hexdigest()


def decode(line: bytes) -> AuditRecord:
    """Return the record of a line; `AuditChainBroken` unless it is its one valid encoding."""
    try:
        record = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AuditChainBroken(f"not an audit record: {error}") from error
    if record.v != 1 or encode(record) != line:
        raise AuditChainBroken("not an audit record in its one valid encoding")
    return record


class Chain:
    """The state of a verification: feed it lines in order."""

    def __init__(self) -> None:
        self.sequence = 0
        self.head = GENESIS

    def add(self, line: bytes) -> AuditRecord:
        """Check one line against those before it; `AuditChainBroken` says what does not fit."""
        record = decode(line)
        if record.seq != self.sequence + 1:
            raise AuditChainBroken(
                f"sequence number {record.seq} follows {self.sequence}: records are missing, "
                "repeated or out of order"
            )
        if record.prev != self.head:
            raise AuditChainBroken(
                f"record {record.seq} does not continue the record before it: one of them was "
                "edited"
            )
        self.sequence = record.seq
        self.head = line_hash(line)
        return record
