"""Envelopes in files and pipes, of any size, in constant memory.

A target that is a path is complete or absent, whatever fails. Decrypting to a pipe may have written
an authenticated prefix by the time that the rest turns out not to be authentic; the error says so
by being raised. No calls are made here: the caller hands in how a session key is got.

Modes: an encrypted file gets what the umask leaves, as with cp; a decrypted file is for its owner
alone (0600), as plaintext was encrypted for a reason.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from keycustody.client.envelopes import Body, Bytes, Expectation, Opener, Sealer
from keycustody.client.files import Input, Output, Progress, Source, Target, open_output
from keycustody.client.pipeline import transfer
from keycustody.errors import TruncatedEnvelope
from keycustody.formats import envelope

_ENCRYPTED_MODE: Final = 0o666
_DECRYPTED_MODE: Final = 0o600
_CHUNK_BYTES: Final = 16 * 1024


def encrypt(
    source: Source,
    target: Target,
    sealer: Callable[[int], Sealer],
    charge: Callable[[int], None],
    *,
    associated_data: Bytes = b"",
    progress: Progress | None = None,
) -> None:
    """Encrypt `source` into `target`.

    `sealer` is called with the source's size (0 if it is not known) and `charge` afterwards with
    the bytes that it was not told of. Raises `FileUnusable`, and what `sealer` raises.
    """
    with ExitStack() as stack:
        data = stack.enter_context(Input.open(source))
        chosen = sealer(data.size or 0)
        out = stack.enter_context(open_output(target, mode=_ENCRYPTED_MODE))
        out.write(chosen.head)
        body = chosen.body(associated_data)
        done = transfer(data, body, out, total=data.size, progress=progress)
        # A file that grew, or one whose size is a fiction (as in /proc), held more than it said.
        charge(max(0, done - (data.size or 0)))
        out.commit()


def decrypt(
    source: Source,
    target: Target,
    expected: Expectation,
    opener: Callable[[envelope.Header, int], Opener],
    charge: Callable[[envelope.Header, int], None],
    *,
    associated_data: Bytes = b"",
    progress: Progress | None = None,
) -> None:
    """Decrypt `source` into `target`, once its header is what is expected.

    `opener` is called with the header and the source's size (0 if it is not known) and `charge`
    afterwards with the bytes that it was not told of. Raises
    `FileUnusable`, `MalformedEnvelope`, `UnexpectedKey`, `UnexpectedContext`, `DecryptionFailed`,
    and what `opener` raises.
    """
    with ExitStack() as stack:
        data = stack.enter_context(Input.open(source))
        header, rest, done = _header(data)
        expected.check(header)
        body = opener(header, data.size or 0).body(associated_data)
        out = stack.enter_context(open_output(target, mode=_DECRYPTED_MODE))
        _feed(body, rest, out)
        done = transfer(data, body, out, done=done, total=data.size, progress=progress)
        charge(header, max(0, done - (data.size or 0)))
        out.commit()


def read_header(source: Source) -> envelope.Header:
    """The header of an envelope, not verified: a claim. Raises `MalformedEnvelope` and
    `FileUnusable`. A file object has been read beyond its header afterwards."""
    with Input.open(source) as data:
        return _header(data)[0]


def _header(data: Input) -> tuple[envelope.Header, bytes, int]:
    """The header, what was read beyond it, and the number of bytes read."""
    held = bytearray()
    buffer = memoryview(bytearray(envelope.MAX_HEADER_BYTES))
    while True:
        count = data.readinto(buffer[len(held) :])
        held += buffer[len(held) : len(held) + count]
        try:
            header, length = envelope.parse(held)
        except TruncatedEnvelope:
            if not count:
                raise
        else:
            return header, bytes(held[length:]), len(held)


def _feed(body: Body, data: bytes, out: Output) -> None:
    # A chunk is 16 KiB and more than a header: what is read beyond one is less than a chunk, so it
    # is held back by the body rather than written. The buffer is for the contract's sake.
    buffer = memoryview(bytearray(len(data) + _CHUNK_BYTES))
    out.write(buffer[: body.update_into(data, buffer)])
