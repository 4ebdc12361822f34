"""Makes envelope.json; the ciphertexts differ on each run, as their salts are random."""

import base64
import hashlib
import struct
from collections.abc import Iterable
from typing import Final

from tests.vectors.making.context import bad_contexts
from tests.vectors.making.spec import (
    CHUNK,
    PREAMBLE,
    TENANT,
    Json,
    Pairs,
    aes_key,
    encode_context,
    encrypt,
    flip,
    lp16,
    mac_key,
    made,
    plaintext,
    wrap,
)

TENANT_43: Final[Pairs] = [("purpose", "export"), ("tenant", "43")]


class Envelope:
    """An envelope in the making: every part of it can be given wrong, and the rest still fits."""

    def __init__(
        self,
        *,
        magic: bytes = b"KCUSTODY",
        format_: int = 1,
        suite: int = 1,
        name: bytes = b"orders",
        pairs: Pairs = TENANT,
        context: bytes | None = None,
        version: int = 1,
        wrapped: bytes | None = None,
        data: bytes = b"",
        aad: bytes = b"",
        session: str = "envelope",
    ) -> None:
        self.session_key = made(f"session key: {session}")
        self.pairs = pairs
        context = encode_context(pairs) if context is None else context
        self.name, self.version, self.data, self.aad = name.decode("latin-1"), version, data, aad
        self.fixed = (
            magic + bytes([format_]) + struct.pack(">H", suite) + lp16(name) + lp16(context)
        )
        if wrapped is None:
            # Keys are named by text, so a name that is not valid gets keys of its own as well.
            wrapped = wrap(self.session_key, self.name, version, context, suite)
        self.slot = struct.pack(">I", version) + lp16(wrapped)
        self.wrapped = wrapped
        self.body = encrypt(self.session_key, self.fixed, data, aad)

    @property
    def header(self) -> bytes:
        return self.fixed + self.slot

    def encode(self) -> bytes:
        return self.header + self.body


def envelope_file() -> Json:
    long = Envelope(data=plaintext(32769), aad=b"file 7", session="long")
    small = Envelope(data=plaintext(100), aad=b"sequence 1")
    exact = Envelope(data=plaintext(16384))
    empty_context = Envelope(pairs=[], data=plaintext(1))
    largest = Envelope(name=b"a0._-" * 12 + b"zzzz", version=2**32 - 1, pairs=longest_context())
    # An honest rewrap: the same session key under version 2, and everything else as it was.
    rewrapped = Envelope(version=2, data=plaintext(100), aad=b"sequence 1")
    rewrapped_slot = rewrapped.slot
    rewrapped.body, rewrapped.fixed = small.body, small.fixed
    valid = [
        ("empty plaintext", Envelope()),
        ("one byte, the empty context", empty_context),
        ("with associated data", small),
        ("the same after a rewrap to version 2", rewrapped),
        ("the longest header", largest),
        ("16,383 bytes: one chunk, the longest last one", Envelope(data=plaintext(16383))),
        ("16,384 bytes: a full chunk and an empty one", exact),
        ("32,769 bytes: two full chunks and a byte", long),
    ]
    return {
        "format": "envelope",
        "keys": [
            {
                "key": name,
                "version": version,
                "aes_key": aes_key(name, version).hex(),
                "mac_key": mac_key(name, version).hex(),
            }
            for name, version in (
                ("orders", 1),
                ("orders", 2),
                ("orderz", 1),
                (largest.name, largest.version),
            )
        ],
        "open": [opens(name, envelope) for name, envelope in valid],
        "refuse": [
            *truncated_headers(small),
            *malformed_headers(),
            *unexpected(small),
            *rejected_wrapped_keys(small),
            *failed_bodies(small, long, exact, rewrapped_slot),
        ],
    }


def longest_context() -> Pairs:
    filler: Pairs = [(f"{index:02}", "v" * 1024) for index in range(7)]
    room = 8192 - len(encode_context([*filler, ("last", "")]))
    return [*filler, ("last", "v" * room)]


def opens(name: str, envelope: Envelope) -> Json:
    return {
        "id": name,
        "key": envelope.name,
        "version": envelope.version,
        "context": envelope.pairs,
        "wrapped": envelope.wrapped.hex(),
        "header_length": len(envelope.header),
        "session_key": envelope.session_key.hex(),
        "associated_data": envelope.aad.hex(),
        "plaintext_length": len(envelope.data),
        "plaintext_sha256": hashlib.sha256(envelope.data).hexdigest(),
        "envelope": [{"base64": base64.b64encode(envelope.encode()).decode()}],
    }


def refuses(
    name: str,
    error: str,
    envelope: bytes | list[Json],
    *,
    key: str | None = None,
    context: Pairs | None = None,
    aad: bytes = b"",
) -> Json:
    parts = [{"hex": envelope.hex()}] if isinstance(envelope, bytes) else envelope
    return {
        "id": name,
        "required_key": key,
        "required_context": context,
        "associated_data": aad.hex(),
        "envelope": parts,
        "error": error,
    }


def truncated_headers(good: Envelope) -> Iterable[Json]:
    fixed, header = len(good.fixed), len(good.header)
    cuts = [
        ("before its first byte", 0),
        ("inside the magic", 5),
        ("after the magic", 8),
        ("after the format", 9),
        ("inside the suite", 10),
        ("inside the name's length", 12),
        ("after the name's length", 13),
        ("inside the name", 18),
        ("after the name", 19),
        ("after the context's length", 21),
        ("inside the context", fixed - 1),
        ("after the context", fixed),
        ("inside the version", fixed + 3),
        ("after the version", fixed + 4),
        ("inside the wrapped key's length", fixed + 5),
        ("after the wrapped key's length", fixed + 6),
        ("before the header's last byte", header - 1),
    ]
    for name, cut in cuts:
        yield refuses(f"header: ends {name}", "TRUNCATED_ENVELOPE", good.encode()[:cut])


def malformed_headers() -> Iterable[Json]:
    good = Envelope()
    name_at, context_at = 11, 19
    edits = [
        ("another magic", Envelope(magic=b"KCUSTOMY")),
        ("format 0", Envelope(format_=0)),
        ("format 2", Envelope(format_=2)),
        ("suite 0", Envelope(suite=0)),
        ("suite 2", Envelope(suite=2)),
        ("suite 256: bytes exchanged", Envelope(suite=256)),
        ("suite 65535", Envelope(suite=65535)),
        ("an empty name", Envelope(name=b"")),
        ("a name of 65 bytes", Envelope(name=b"a" * 65)),
        ("an upper-case name", Envelope(name=b"Orders")),
        ("a slash in the name", Envelope(name=b"a/b")),
        ("a colon in the name: the agent's own", Envelope(name=b"keycustody:delivery")),
        ("a name that starts with a dot", Envelope(name=b".a")),
        ("a name that starts with a hyphen", Envelope(name=b"-a")),
        ("a newline after the name", Envelope(name=b"orders\n")),
        ("a zero byte in the name", Envelope(name=b"orders\0")),
        ("a name that is not ASCII", Envelope(name="or\u00e9".encode())),
        ("a name with an Arabic digit", Envelope(name="a\u0663".encode())),
        ("version 0", Envelope(version=0)),
        ("no wrapped key", Envelope(wrapped=b"")),
        ("a wrapped key of 71 bytes", Envelope(wrapped=bytes(71))),
        ("a wrapped key of 73 bytes", Envelope(wrapped=bytes(73))),
    ]
    for name, envelope in edits:
        yield refuses(f"header: {name}", "MALFORMED_ENVELOPE", envelope.encode())
    for name, context in bad_contexts():
        yield refuses(f"context: {name}", "MALFORMED_ENVELOPE", Envelope(context=context).encode())
    short = [
        ("another magic, cut short", b"KCX"),
        ("another first byte, and no more", b"k"),
        ("format 2, and no more", good.header[:8] + b"\2"),
        ("suite 2, and no more", good.header[:9] + b"\0\2"),
        ("a name of 65 bytes is announced, and no more", good.header[:name_at] + b"\0\x41"),
        ("a context of 8,193 bytes is announced, and no more", good.fixed[:context_at] + b"\x20\1"),
        ("a context of 1 byte is announced, and no more", good.fixed[:context_at] + b"\0\1"),
        ("a wrapped key of 73 bytes is announced, and no more", good.header[:-74] + b"\0\x49"),
    ]
    for name, data in short:
        yield refuses(f"header: {name}", "MALFORMED_ENVELOPE", data)


def unexpected(good: Envelope) -> Iterable[Json]:
    data, aad = good.encode(), good.aad
    yield refuses(
        "required: another key", "UNEXPECTED_KEY", data, key="orderz", context=TENANT, aad=aad
    )
    contexts: list[tuple[str, Pairs]] = [
        ("another value", TENANT_43),
        ("fewer pairs", [("tenant", "42")]),
        ("more pairs", [*TENANT, ("zone", "1")]),
        ("the empty context", []),
    ]
    for name, pairs in contexts:
        yield refuses(
            f"required: {name}", "UNEXPECTED_CONTEXT", data, key="orders", context=pairs, aad=aad
        )


def rejected_wrapped_keys(good: Envelope) -> Iterable[Json]:
    """Any key and context will do for these; the tag is what refuses."""
    wrapped = good.wrapped
    edits = [
        ("the name edited", Envelope(name=b"orderz", wrapped=wrapped)),
        ("the context edited", Envelope(pairs=TENANT_43, wrapped=wrapped)),
        ("the version edited", Envelope(version=2, wrapped=wrapped)),
        ("KW edited", Envelope(wrapped=flip(wrapped, 0))),
        ("the tag edited", Envelope(wrapped=flip(wrapped, 71))),
        ("a tag of zeros", Envelope(wrapped=wrapped[:40] + bytes(32))),
    ]
    for name, envelope in edits:
        yield refuses(f"wrapped key: {name}", "WRAPPED_KEY_REJECTED", envelope.encode())


def failed_bodies(
    small: Envelope, long: Envelope, exact: Envelope, rewrapped_slot: bytes
) -> Iterable[Json]:
    failed = "DECRYPTION_FAILED"
    other = Envelope(data=plaintext(100), aad=small.aad, session="other")
    edited_context = Envelope(pairs=TENANT_43)
    edited_name = Envelope(name=b"orderz")
    header, body = small.header, small.body
    # These have valid wrapped keys, so the body alone refuses.
    messages = [
        ("the slot of another session key", small.fixed + other.slot + body),
        ("the body of another session key", header + other.body),
        ("the context edited, with a wrapped key made for it", edited_context.header + body),
        ("the name edited, with a wrapped key made for it", edited_name.header + body),
        ("no body", header),
        ("ends inside the salt", header + body[:23]),
        ("ends inside the commitment", header + body[:55]),
        ("ends after the commitment", header + body[:PREAMBLE]),
        ("ends inside the last tag", header + body[:-1]),
        ("a byte follows", header + body + b"\0"),
        ("an envelope follows", small.encode() + small.encode()),
        ("the salt edited", header + flip(body, 0)),
        ("the commitment edited", header + flip(body, 24)),
        ("the chunk edited", header + flip(body, PREAMBLE)),
        ("the tag edited", header + flip(body, len(body) - 1)),
    ]
    for name, data in messages:
        yield refuses(f"body: {name}", failed, data, aad=small.aad)
    yield refuses(
        "body: rewrapped, then the body edited",
        failed,
        small.fixed + rewrapped_slot + flip(body, PREAMBLE),
        aad=small.aad,
    )
    yield refuses("body: other associated data", failed, small.encode(), aad=b"sequence 2")
    yield refuses("body: no associated data", failed, small.encode())
    yield refuses(
        "body: associated data where there was none", failed, Envelope().encode(), aad=b"\0"
    )
    yield from failed_chunks(long, exact)


def failed_chunks(long: Envelope, exact: Envelope) -> Iterable[Json]:
    """Edits of the envelopes of several chunks, as slices of them."""
    first = len(long.header) + PREAMBLE
    second, last, end = first + CHUNK, first + 2 * CHUNK, len(long.encode())
    of_long, of_exact = (
        "32,769 bytes: two full chunks and a byte",
        "16,384 bytes: a full chunk and an empty one",
    )

    def slices(*ranges: tuple[int, int], source: str = of_long) -> list[Json]:
        return [{"of": source, "from": start, "to": stop} for start, stop in ranges]

    flipped = flip(long.encode(), last - 1)[last - 1 : last]
    edited = [*slices((0, last - 1)), {"hex": flipped.hex()}, *slices((last, end))]
    cases = [
        ("chunks exchanged", slices((0, first), (second, last), (first, second), (last, end))),
        ("the first chunk left out", slices((0, first), (second, end))),
        ("the second chunk left out", slices((0, second), (last, end))),
        ("the second chunk twice", slices((0, last), (second, end))),
        ("the last chunk twice", slices((0, end), (last, end))),
        ("the last chunk alone", slices((0, first), (last, end))),
        ("cut after the second chunk", slices((0, last))),
        ("cut after the first chunk", slices((0, second))),
        ("cut inside the second chunk", slices((0, last - 100))),
        ("the second chunk's tag edited", edited),
    ]
    for name, parts in cases:
        yield refuses(f"chunks: {name}", "DECRYPTION_FAILED", parts, aad=long.aad)
    cut = len(exact.encode()) - 16
    yield refuses(
        "chunks: the empty last chunk cut off",
        "DECRYPTION_FAILED",
        slices((0, cut), source=of_exact),
    )
