"""Bodies cut, swapped, doubled and extended at every chunk boundary, as messages and as files."""

import io
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from keycustody import errors
from keycustody.client import envelope_files
from keycustody.client.delivery import SecretKey
from keycustody.client.envelopes import ANY, Expectation, Opener, Sealer
from keycustody.formats.envelope import Header

KEY = SecretKey(bytes(range(32)))
HEADER = Header.of("invoices", {"tenant": "42"}, 1, bytes(72))
START = len(HEADER.encode())
CHUNK, TAG = 16 * 1024, 16
#: Around a read's end (1 MiB), and so small that each boundary is near another.
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 65 * CHUNK + 7]


def sealed(size: int, byte: bytes) -> bytes:
    """An envelope of so many bytes, of one session: only salt and content tell two apart."""
    target = io.BytesIO()
    envelope_files.encrypt(
        io.BytesIO(byte * size), target, lambda _: Sealer(HEADER, KEY), lambda _: None
    )
    return target.getvalue()


def boundaries(data: bytes) -> list[int]:
    """Where something begins or ends: salt, commitment, each chunk, the end."""
    first = START + 24 + 32
    return [START, START + 24, *range(first, len(data), CHUNK + TAG), len(data)]


#: What is done at boundary `at`, where the piece before it began at `before` and the one after
#: ends at `after`; `other` is another genuine message of the same session and size.
Edit = Callable[[bytes, int, int, int, bytes], bytes]
EDITS: dict[str, Edit] = {
    "cut": lambda data, before, at, after, other: data[:at],
    "cut one byte before": lambda data, before, at, after, other: data[: at - 1],
    "cut one byte after": lambda data, before, at, after, other: data[: at + 1],
    "a piece removed": lambda data, before, at, after, other: data[:at] + data[after:],
    "a piece twice": lambda data, before, at, after, other: data[:after] + data[at:],
    "two pieces swapped": lambda data, before, at, after, other: (
        data[:before] + data[at:after] + data[before:at] + data[after:]
    ),
    "a piece of another message": lambda data, before, at, after, other: (
        data[:at] + other[at:after] + data[after:]
    ),
    "another message from there on": lambda data, before, at, after, other: data[:at] + other[at:],
    "a byte put in": lambda data, before, at, after, other: data[:at] + b"\0" + data[at:],
    "a tag's length put in": lambda data, before, at, after, other: (
        data[:at] + bytes(TAG) + data[at:]
    ),
    "a piece of zeros": lambda data, before, at, after, other: (
        data[:at] + bytes(after - at) + data[after:]
    ),
    "a whole body put in": lambda data, before, at, after, other: (
        data[:at] + other[START:] + data[at:]
    ),
}


def edited(size: int, edit: Edit) -> Iterator[bytes]:
    """What comes of an edit at each boundary; what changes nothing is left out."""
    data, other = sealed(size, b"a"), sealed(size, b"b")
    points = boundaries(data)
    for (before, at), (_, after) in pairwise(pairwise([START, *points, len(data)])):
        hostile = edit(data, before, at, after, other)
        if hostile not in (data, other) and len(hostile) >= START:
            yield hostile


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", EDITS)
def test_no_edit_of_a_body_opens(tmp_path: Path, size: int, what: str) -> None:
    opener = Opener(HEADER, KEY)
    assert opener.open(sealed(size, b"a")[START:], b"") == b"a" * size
    count = 0
    for hostile in edited(size, EDITS[what]):
        with pytest.raises(errors.DecryptionFailed) as message:
            opener.open(hostile[START:], b"")
        with pytest.raises(errors.DecryptionFailed) as file:
            envelope_files.decrypt(
                io.BytesIO(hostile),
                tmp_path / "back",
                Expectation.of(ANY, ANY),
                lambda header, size: Opener(header, KEY),
                lambda header, size: None,
            )
        # Which chunk failed, and how, is nobody's business.
        assert message.value.message == file.value.message
        count += 1
    assert count
    assert list(tmp_path.iterdir()) == []
