"""A second reader of the formats: docs/format.md read again, from nothing else.

It exists to find what the specification leaves out. Nothing here comes from the project's own
code, and test_second_reader.py holds it to that: only the standard library and `cryptography`.
It is a reader for tests: it takes whole byte strings, and is careless with time and memory.
"""

import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

# Section 1: names and limits, in bytes. Sizes from section 4 on are those of suite 1, the only one.
KEY_NAME = re.compile(rb"[a-z0-9][a-z0-9._-]*")
NAME_LIMITS = (1, 64)
MAX_PAIRS = 64
PAIR_KEY_LIMITS = (1, 128)
PAIR_VALUE_LIMITS = (0, 1024)
CONTEXT_LIMITS = (2, 8192)
KW_BYTES, WRAPPED_BYTES, SEALED_BYTES = 40, 72, 40

# The table of section 6. The last three are named in README.md beside this file, and not there.
Code = Literal[
    "TRUNCATED_ENVELOPE",
    "MALFORMED_ENVELOPE",
    "UNEXPECTED_KEY",
    "UNEXPECTED_CONTEXT",
    "WRAPPED_KEY_REJECTED",
    "DECRYPTION_FAILED",
    "INVALID_CONTEXT",
    "INVALID_POINT",
    "DELIVERY_REJECTED",
]


class Refused(Exception):
    """The one failure of this reader: the class of section 6, and nothing that tells more."""

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code = code


def u16(number: int) -> bytes:
    """The notation before section 1."""
    return number.to_bytes(2, "big")


def lp16(data: bytes) -> bytes:
    """The notation before section 1."""
    return u16(len(data)) + data


def take(data: bytes, at: int, count: int, short: Code) -> tuple[bytes, int]:
    """The `count` bytes at `at`, and where they end; `short` is the failure if they are not."""
    if at + count > len(data):
        raise Refused(short)
    return data[at : at + count], at + count


def take_number(data: bytes, at: int, size: int, short: Code) -> tuple[int, int]:
    """One of u8, u16 and u32 of the notation before section 1, by its size in bytes."""
    field, at = take(data, at, size, short)
    return int.from_bytes(field, "big"), at


def take_lp16(data: bytes, at: int, limits: tuple[int, int], short: Code) -> tuple[bytes, int]:
    """An lp16; its length is held to section 1 before any of the bytes that it measures."""
    length, at = take_number(data, at, 2, short)
    if not limits[0] <= length <= limits[1]:
        raise Refused("MALFORMED_ENVELOPE")
    return take(data, at, length, short)


# -------------------------------------------------------------------------- section 2, context


def context_text(text: str, limits: tuple[int, int]) -> bytes:
    """Section 1: UTF-8 as given, within its limits in bytes, no U+0000, no lone surrogate."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise Refused("INVALID_CONTEXT") from None
    if not limits[0] <= len(data) <= limits[1] or b"\0" in data:
        raise Refused("INVALID_CONTEXT")
    return data


def encode_context(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Section 2: the number of pairs, then each, sorted by the bytes of unique keys."""
    given = [
        (context_text(key, PAIR_KEY_LIMITS), context_text(value, PAIR_VALUE_LIMITS))
        for key, value in pairs
    ]
    if len(given) > MAX_PAIRS or len(dict(given)) != len(given):
        raise Refused("INVALID_CONTEXT")
    encoded = u16(len(given)) + b"".join(lp16(key) + lp16(value) for key, value in sorted(given))
    if len(encoded) > CONTEXT_LIMITS[1]:
        raise Refused("INVALID_CONTEXT")
    return encoded


def decode_context(encoded: bytes) -> list[tuple[str, str]]:
    """Section 2 backwards; what does not re-encode to the same bytes is refused."""
    short: Code = "MALFORMED_ENVELOPE"  # these bytes are all there is of it: none can follow
    count, at = take_number(encoded, 0, 2, short)
    if count > MAX_PAIRS:
        raise Refused("MALFORMED_ENVELOPE")
    pairs: list[tuple[str, str]] = []
    for _ in range(count):
        key, at = take_lp16(encoded, at, PAIR_KEY_LIMITS, short)
        value, at = take_lp16(encoded, at, PAIR_VALUE_LIMITS, short)
        try:
            pairs.append((key.decode("utf-8"), value.decode("utf-8")))
        except UnicodeDecodeError:
            raise Refused("MALFORMED_ENVELOPE") from None
    try:
        again = encode_context(pairs)
    except Refused:
        raise Refused("MALFORMED_ENVELOPE") from None
    if again != encoded:
        raise Refused("MALFORMED_ENVELOPE")
    return pairs


def context_hash(encoded: bytes) -> bytes:
    """Section 2, of an encoded context."""
    return sha256(b"keycustody.context.v1\0" + encoded).digest()


# ---------------------------------------------------------------------- section 4, wrapped key


@dataclass(frozen=True)
class Bound:
    """What sections 4 and 5 both bind a session key to."""

    suite: int
    key: str
    version: int
    context_hash: bytes

    def is_possible(self) -> bool:
        """Sections 1 and 3: may this stand in anything that is stored?"""
        name = self.key.encode("utf-8", "surrogatepass")
        return (
            self.suite == 1
            and len(name) <= NAME_LIMITS[1]
            and KEY_NAME.fullmatch(name) is not None
            and 1 <= self.version < 2**32
        )

    def named(self) -> bytes:
        """`lp16(key name) || u32(key version) || context_hash`, as both sections have it."""
        return lp16(self.key.encode()) + self.version.to_bytes(4, "big") + self.context_hash


def wrapped_key_binding(to: Bound, kw: bytes) -> bytes:
    """Section 4, `binding`."""
    return b"keycustody.wrapped-key.v1\0" + u16(to.suite) + to.named() + kw


def unwrap_key(aes_key: bytes, mac_key: bytes, to: Bound, wrapped: bytes) -> bytes:
    """Section 4: the session key. The tag first, and one failure whatever the reason."""
    if len(wrapped) != WRAPPED_BYTES or not to.is_possible():
        raise Refused("WRAPPED_KEY_REJECTED")
    kw, tag = wrapped[:KW_BYTES], wrapped[KW_BYTES:]
    if not hmac.compare_digest(hmac.digest(mac_key, wrapped_key_binding(to, kw), "sha256"), tag):
        raise Refused("WRAPPED_KEY_REJECTED")
    try:
        return aes_key_unwrap(aes_key, kw)
    except InvalidUnwrap:
        raise Refused("WRAPPED_KEY_REJECTED") from None


# ------------------------------------------------------------------ section 5, sealed delivery


def check_point(point: bytes) -> ec.EllipticCurvePublicKey:
    """Section 5: 65 bytes, uncompressed, on the curve. Infinity has no such encoding."""
    if len(point) != 65 or point[0] != 0x04:
        raise Refused("INVALID_POINT")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise Refused("INVALID_POINT") from None


def shared_secret(private: bytes, point: bytes) -> bytes:
    """Section 5, `Z`, from either side."""
    key = ec.derive_private_key(int.from_bytes(private, "big"), ec.SECP256R1())
    return key.exchange(ec.ECDH(), check_point(point))


def delivery_binding(to: Bound, delivery: bytes, client: bytes, wrapped: bytes) -> bytes:
    """Section 5, `binding`, which is a hash already."""
    bound = u16(to.suite) + delivery + client + to.named() + sha256(wrapped).digest()
    return sha256(b"keycustody.delivery.v1\0" + bound).digest()


def delivery_key(z: bytes, binding: bytes) -> bytes:
    """Section 5, `T`. The format derives a key by ECB, and says why that is safe."""
    encryptor = Cipher(algorithms.AES256(z), modes.ECB()).encryptor()  # noqa: S305
    return encryptor.update(binding) + encryptor.finalize()


def open_delivery(
    private: bytes, client: bytes, to: Bound, delivery: bytes, wrapped: bytes, sealed: bytes
) -> bytes:
    """Section 5, the client's side: `to` and `client` are what it asked, the rest an answer."""
    if len(wrapped) != WRAPPED_BYTES or len(sealed) != SEALED_BYTES or not to.is_possible():
        raise Refused("DELIVERY_REJECTED")
    try:
        z = shared_secret(private, delivery)
        t = delivery_key(z, delivery_binding(to, delivery, client, wrapped))
        return aes_key_unwrap(t, sealed)
    except (Refused, InvalidUnwrap):
        raise Refused("DELIVERY_REJECTED") from None


# ------------------------------------------------------------------------- section 6, envelope


@dataclass(frozen=True)
class Header:
    """`fixed || slot` of section 6: parsed, and not believed."""

    suite: int
    key: str
    context: bytes  # encoded: of one valid encoding, and so equal where the pairs are
    version: int
    wrapped: bytes
    fixed: bytes
    length: int

    def bound(self) -> Bound:
        """What section 4 has to find the wrapped key bound to."""
        return Bound(self.suite, self.key, self.version, context_hash(self.context))


def parse_header(data: bytes) -> Header:
    """Section 6, `fixed || slot`: each field is judged as soon as it is complete."""
    short: Code = "TRUNCATED_ENVELOPE"
    if not b"KCUSTODY".startswith(data[:8]):
        raise Refused("MALFORMED_ENVELOPE")
    _, at = take(data, 0, 8, short)
    for size in (1, 2):  # the format's version and the suite: 1, both of them
        number, at = take_number(data, at, size, short)
        if number != 1:
            raise Refused("MALFORMED_ENVELOPE")
    name, at = take_lp16(data, at, NAME_LIMITS, short)
    if KEY_NAME.fullmatch(name) is None:
        raise Refused("MALFORMED_ENVELOPE")
    context, at = take_lp16(data, at, CONTEXT_LIMITS, short)
    decode_context(context)
    fixed = data[:at]
    version, at = take_number(data, at, 4, short)
    if version == 0:
        raise Refused("MALFORMED_ENVELOPE")
    wrapped, at = take_lp16(data, at, (WRAPPED_BYTES, WRAPPED_BYTES), short)
    return Header(1, name.decode("ascii"), context, version, wrapped, fixed, at)


def require(header: Header, key: str | None, pairs: Iterable[tuple[str, str]] | None) -> None:
    """Section 6: compare before asking for an unwrap. None says that any will do."""
    if key is not None and key != header.key:
        raise Refused("UNEXPECTED_KEY")
    if pairs is not None and encode_context(pairs) != header.context:
        raise Refused("UNEXPECTED_CONTEXT")


def decrypt_body(session_key: bytes, fixed: bytes, associated_data: bytes, body: bytes) -> bytes:
    """Section 6, `body`: all of the plaintext, or none."""
    hashes = sha256(fixed).digest() + sha256(associated_data).digest()
    decryptor = Cobblestone256Decryptor(session_key, b"keycustody.envelope.v1\0" + hashes)
    try:
        return decryptor.update(body) + decryptor.finalize()
    except InvalidTag:
        raise Refused("DECRYPTION_FAILED") from None


def read_envelope(
    envelope: bytes,
    *,
    key: str | None,
    pairs: Iterable[tuple[str, str]] | None,
    unwrap: Callable[[Header], bytes],
    associated_data: bytes = b"",
) -> bytes:
    """Section 6, in the order README.md gives: parse, compare, unwrap, decrypt."""
    header = parse_header(envelope)
    require(header, key, pairs)
    session_key = unwrap(header)
    return decrypt_body(session_key, header.fixed, associated_data, envelope[header.length :])
