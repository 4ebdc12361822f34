"""The rewrap record: what a rewrap is about to write, so that a torn write can be mended.

docs/format.md, section 9. Bytes in, values out; files are `keycustody.client.slots`'s. A record
holds no secret: slots hold wrapped keys.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keycustody.errors import InvalidRequest
from keycustody.formats.envelope import SLOT_BYTES

MAGIC: Final = b"KCREWRAP"
FORMAT: Final = 1
MAX_ENTRIES: Final = 64
_HASH: Final = 32
_NAME_MAX: Final = 255
_ENTRY_MAX: Final = 2 + _NAME_MAX + 2 + _HASH + 2 * SLOT_BYTES
MAX_BYTES: Final = len(MAGIC) + 1 + 2 + MAX_ENTRIES * _ENTRY_MAX + _HASH


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the record's own folder: its name, where its slot is, and both slots.

    `offset` is the length of the header's fixed part, and `fixed_sha256` the hash of that.
    """

    name: bytes
    offset: int
    fixed_sha256: bytes
    old: bytes
    new: bytes

    def __post_init__(self) -> None:
        plain = 1 <= len(self.name) <= _NAME_MAX and not set(self.name) & {0, ord("/")}
        if not plain or self.name in (b".", b".."):
            raise InvalidRequest("A rewrap record names files of its own folder.")
        sizes = len(self.fixed_sha256), len(self.old), len(self.new)
        if sizes != (_HASH, SLOT_BYTES, SLOT_BYTES) or not 0 <= self.offset < 2**16:
            raise InvalidRequest("A rewrap record holds a hash and two slots for each file.")

    def mixed(self, slot: bytes) -> bool:
        """Is that slot partly the old and partly the new one, as a torn write leaves it?"""
        return len(slot) == SLOT_BYTES and all(
            byte in both for byte, *both in zip(slot, self.old, self.new, strict=True)
        )


def encode(entries: Sequence[Entry]) -> bytes:
    """The bytes of a record. Raises `InvalidRequest` for none or more than 64."""
    if not 1 <= len(entries) <= MAX_ENTRIES:
        raise InvalidRequest(f"A rewrap record has 1 to {MAX_ENTRIES} files.")
    body = b"".join(
        (
            MAGIC,
            FORMAT.to_bytes(1),
            len(entries).to_bytes(2),
            *(
                len(entry.name).to_bytes(2)
                + entry.name
                + entry.offset.to_bytes(2)
                + entry.fixed_sha256
                + entry.old
                + entry.new
                for entry in entries
            ),
        )
    )
    return body + hashlib.sha256(body).digest()


def decode(data: bytes) -> list[Entry] | None:
    """The entries of a record; None if it is not a complete one, in its one valid encoding. Then
    it was cut short, and nothing that it speaks of was written."""
    body, digest = data[:-_HASH], data[-_HASH:]
    if not data.startswith(MAGIC + FORMAT.to_bytes(1)) or hashlib.sha256(body).digest() != digest:
        return None
    at = len(MAGIC) + 1
    count = int.from_bytes(body[at : at + 2])
    at += 2
    entries = []
    try:
        for _ in range(count):
            end = at + 2 + int.from_bytes(body[at : at + 2])
            name, rest = body[at + 2 : end], body[end : end + 2 + _HASH + 2 * SLOT_BYTES]
            slots = rest[2 + _HASH :]
            entries.append(
                Entry(
                    name,
                    int.from_bytes(rest[:2]),
                    rest[2 : 2 + _HASH],
                    slots[:SLOT_BYTES],
                    slots[SLOT_BYTES:],
                )
            )
            at = end + len(rest)
        return entries if encode(entries) == data else None
    except InvalidRequest:
        return None
