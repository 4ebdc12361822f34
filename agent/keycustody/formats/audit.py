"""Audit records: one line of JSON each, chained by hash.

docs/format.md, section 8. Agent only: it needs msgspec, which the client does not have. The chain
is computed here and written by `keycustody.custody.audit`.
"""

import hashlib
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from keycustody.errors import AuditChainBroken

MAX_LINE_BYTES = 1024 * 1024
GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: a record's sequence number, and the hash of its line, which the next one
    will name."""

    sequence: int
    hash: str


class AuditRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """One request, `count` denials of one principal, one step of an administrative command, or a
    signed head. Holds no secret."""

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
    count: int
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
        # Without the parser's words, which quote what somebody put there.
        raise AuditChainBroken("not an audit record") from error
    if record.v != 1 or encode(record) != line:
        raise AuditChainBroken("not an audit record in its one valid encoding")
    return record


class Chain:
    """The state of a verification: feed it lines in order.

    It begins at record 1, or, with `head`, after that one; a `head` without hash says that the
    record before is not known, and the first line is believed about it.
    """

    def __init__(self, head: Head | None = None) -> None:
        self.head = head or Head(0, GENESIS)

    def add(self, line: bytes) -> AuditRecord:
        """Check one line against those before it; `AuditChainBroken` says what does not fit."""
        record = decode(line)
        if record.seq != self.head.sequence + 1:
            raise AuditChainBroken(
                f"sequence number {record.seq} follows {self.head.sequence}: records are missing, "
                "repeated or out of order"
            )
        if self.head.hash and record.prev != self.head.hash:
            raise AuditChainBroken(
                f"record {record.seq} does not continue the record before it: one of them was "
                "edited"
            )
        self.head = Head(record.seq, line_hash(line))
        return record
