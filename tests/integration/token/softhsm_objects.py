"""SoftHSM's object files, edited behind its back: a token whose keys are not what they were.

A file is a generation number and then attributes: type, kind and value, each number 8 bytes, big
endian (SoftHSM 2.6, lib/object_store/ObjectFile.cpp). Values of private objects are encrypted, not
authenticated and not bound to their object, so that one can take another's place.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

CKA_LABEL, CKA_VALUE, CKA_CLASS, CKA_KEY_TYPE = 0x003, 0x011, 0x000, 0x100
_BOOLEAN, _ULONG, _BYTES, _MECHANISMS, _MAP = 1, 2, 3, 5, 4
PRIVATE_KEY, SECRET_KEY = 3, 4
EC, AES = 3, 0x1F


def _number(data: bytes, position: int) -> int:
    return int(struct.unpack_from(">Q", data, position)[0])


def _attributes(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Type, start and end of each attribute's value."""
    position = 8
    while position < len(data):
        kind = _number(data, position + 8)
        start = position + 16
        if kind == _BOOLEAN:
            end = start + 1
        elif kind == _ULONG:
            end = start + 8
        elif kind == _BYTES:
            end = start + 8 + _number(data, start)
        elif kind == _MECHANISMS:
            end = start + 8 + 8 * _number(data, start)
        else:
            end = start + 8 + _number(data, start)  # a map, by its size in bytes
        yield _number(data, position), start, end
        position = end


class ObjectFile:
    """One object of a token's store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.original = path.read_bytes()
        self._at = {kind: (start, end) for kind, start, end in _attributes(self.original)}

    def value(self, attribute: int) -> bytes:
        """The stored value of an attribute, encrypted as it may be; empty if it has none."""
        start, end = self._at.get(attribute, (0, 0))
        return self.original[start:end]

    def replace(self, attribute: int, value: bytes) -> None:
        """Put another value in an attribute's place; sessions that are open see it."""
        start, end = self._at[attribute]
        assert len(value) == end - start
        self._write(self.original[:start] + value + self.original[end:])

    def restore(self) -> None:
        """Put back what was there."""
        self._write(self.original)

    def _write(self, data: bytes) -> None:
        # What is open looks at the generation to know that the rest changed.
        generation = _number(self.path.read_bytes(), 0) + 1
        self.path.write_bytes(struct.pack(">Q", generation) + data[8:])


def objects(store: Path, object_class: int, key_type: int) -> list[ObjectFile]:
    """The objects of that class and key type, in the order in which they were made."""
    files = sorted(store.rglob("*.object"), key=lambda path: path.stat().st_mtime_ns)
    return [
        found
        for found in map(ObjectFile, files)
        if found.value(CKA_CLASS)[-8:] == struct.pack(">Q", object_class)
        and found.value(CKA_KEY_TYPE)[-8:] == struct.pack(">Q", key_type)
    ]
