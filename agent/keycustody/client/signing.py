"""What of a message or file is sent to be signed: all of it, or its digest made here.

A message goes whole where it may: the agent then knows what it signs. Beyond `INLINE_BYTES` its
digest goes instead, if the key permits prehashed input; else it goes whole all the same, and the
agent's own limit decides.
"""

import hashlib
from typing import Final

from keycustody.algorithms import SignatureAlgorithm
from keycustody.client.calls import SignInput
from keycustody.client.channel import MAX_MESSAGE_BYTES
from keycustody.client.files import Input, Source
from keycustody.errors import MessageTooLarge

#: The agent's message limit, unless it is configured otherwise.
INLINE_BYTES: Final = 1024 * 1024
_BLOCK_BYTES: Final = 1024 * 1024
#: A request is its item and a little more: names, and the lengths of both.
_WHOLE_BYTES: Final = MAX_MESSAGE_BYTES - 64 * 1024


def message_input(data: bytes, algorithm: SignatureAlgorithm, *, prehashed: bool) -> SignInput:
    """What to send for a message; `prehashed` says whether the key permits digests."""
    if len(data) <= INLINE_BYTES or not prehashed or algorithm.hash is None:
        return SignInput(data)
    digest = _hash(algorithm.hash)
    digest.update(data)
    return SignInput(digest.digest(), prehashed=True)


def file_input(source: Source, algorithm: SignatureAlgorithm, *, prehashed: bool) -> SignInput:
    """What to send for a file: its digest, in constant memory, or all of it if that must be.

    Raises `FileUnusable`, and `MessageTooLarge` for a file that no request can hold.
    """
    with Input.open(source) as data:
        if prehashed and algorithm.hash is not None:
            return SignInput(_digest(data, algorithm.hash), prehashed=True)
        return SignInput(_whole(data))


def _digest(data: Input, name: str) -> bytes:
    digest = _hash(name)
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    while count := data.readinto(buffer):
        digest.update(buffer[:count])
    return digest.digest()


def _whole(data: Input) -> bytes:
    held = bytearray()
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    while count := data.readinto(buffer):
        held += buffer[:count]
        if len(held) > _WHOLE_BYTES:
            raise MessageTooLarge(
                f"{data.name} is too large to be signed whole, and this key or algorithm takes no "
                f"digest; at most {_WHOLE_BYTES} bytes fit one request."
            )
    return bytes(held)


def _hash(name: str) -> "hashlib._Hash":
    return hashlib.new(name.replace("_", "").lower())
