"""What is given hostile bytes, and what must hold whatever they are.

A target takes bytes and returns, or raises whatever if something is wrong: each rejection is an
error of ours with a sentence that tells nothing of our insides, and what is accepted encodes to
itself. The fuzzer (`python -m tests.fuzz`) and `test_seeds.py` run them.
"""

import base64
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grpc

from keycustody import wire
from keycustody.config.file import read, read_policy
from keycustody.config.findings import RULES
from keycustody.errors import (
    BY_CODE,
    AuditChainBroken,
    InternalError,
    InvalidContext,
    InvalidRequest,
    KeycustodyError,
    KeyNotTrusted,
    MalformedEnvelope,
    TruncatedEnvelope,
    WrappedKeyRejected,
)
from keycustody.formats import audit, context, envelope, state, wrapped_key
from keycustody.token.api import AnyReply, AnyRequest
from keycustody.token.frames import FrameDecoder, encode
from tests.fuzz.service import Refused, Service

_SEEDS = Path(__file__).parent / "seeds"
_PROJECT = Path(__file__).parents[2]
#: Traces, files, addresses, names from within Python, and PKCS#11's own words: but operators name a
#: key that was there before by its CKA_ID.
_INSIDES = re.compile(
    r"Traceback|\.py\b|CKR_|CKA_(?!ID)|0x[0-9a-f]{6}|NoneType|object at|Error\(|errno"
)
#: A sentence, which may repeat a little of what was sent.
_SENTENCE = 2000


@dataclass(frozen=True)
class Target:
    """`run` takes whatever bytes; `longest` is what the fuzzer makes of them at most; `seeds` come
    besides those in seeds/NAME."""

    run: Callable[[bytes], None]
    longest: int = 4096
    seeds: Callable[[], Iterator[bytes]] = lambda: iter(())


def seeds_of(name: str) -> Iterator[bytes]:
    """Yield what a target begins with."""
    yield from TARGETS[name].seeds()
    for file in sorted((_SEEDS / name).glob("*")):
        yield file.read_bytes()


def check_told(error: KeycustodyError) -> None:
    """Assert that an error has a code, is one sentence, and tells nothing of our insides."""
    assert BY_CODE[error.code] is type(error)
    assert not isinstance(error, InternalError), error.message
    assert error.message.isprintable(), error.message
    assert len(error.message) <= _SENTENCE
    assert not _INSIDES.search(error.message), error.message


def _envelope(data: bytes) -> None:
    try:
        header, length = envelope.parse(data)
    except MalformedEnvelope as error:
        check_told(error)
        return
    assert header.encode() == data[:length]
    assert length <= envelope.MAX_HEADER_BYTES
    # What is cut is truncated, and never something else.
    try:
        envelope.parse(data[: length - 1])
    except TruncatedEnvelope as error:
        check_told(error)
    else:
        raise AssertionError("a header that was cut is taken for whole")


def _context(data: bytes) -> None:
    try:
        pairs = context.decode(data)
    except MalformedEnvelope as error:
        check_told(error)
    else:
        assert context.encode(pairs) == data
    # The same bytes as pairs of text, which a caller might give us.
    text = data.decode("utf-8", "surrogateescape").split("=")
    try:
        encoded = context.encode(dict(zip(text[::2], text[1::2], strict=False)))
    except InvalidContext as error:
        check_told(error)
    else:
        context.decode(encoded)


def _wrapped_key(data: bytes) -> None:
    try:
        assert wrapped_key.join(*wrapped_key.split(data)) == data
    except WrappedKeyRejected as error:
        check_told(error)
    name, _, rest = data.partition(b"\0")
    suite, version = int.from_bytes(rest[:2]), int.from_bytes(rest[2:7])
    try:
        bound = wrapped_key.binding(
            suite, name.decode("utf-8", "surrogateescape"), version, rest[7:39], rest[39:79]
        )
    except InvalidRequest as error:
        check_told(error)
    else:
        assert bound.endswith(rest[7:79])


def _audit_record(data: bytes) -> None:
    try:
        assert audit.encode(audit.decode(data)) == data
    except AuditChainBroken as error:
        check_told(error)


def _state_record(data: bytes) -> None:
    try:
        assert state.encode(state.decode(data)) == data
    except KeyNotTrusted as error:
        check_told(error)


def _frames(data: bytes) -> None:
    for kind in (AnyRequest, AnyReply):
        whole = _decoded(FrameDecoder(kind), data, max(1, len(data)))
        assert _decoded(FrameDecoder(kind), data, 7) == whole
        for value in whole[0]:
            (again,) = FrameDecoder[Any](kind).feed(encode(value))
            assert again == value


def _decoded(decoder: FrameDecoder[Any], data: bytes, piece: int) -> tuple[list[Any], bool]:
    """Return the values of a stream in pieces of this size, and whether it was refused."""
    values: list[Any] = []
    try:
        for start in range(0, len(data), piece):
            values.extend(decoder.feed(data[start : start + piece]))
    except ValueError:
        return values, True
    return values, False


def _configuration(data: bytes) -> None:
    file = _scratch()
    file.write_bytes(data)
    settings, found = read(file)
    policy, amiss = read_policy(file)
    assert settings is not None or found
    assert policy is not None or amiss
    for finding in (*found, *amiss):
        assert finding.rule in RULES
        assert not _INSIDES.search(finding.message.replace(str(file), "")), finding.message
        assert len(finding.message) <= _SENTENCE


@cache
def _scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-")) / "settings.toml"


@cache
def _service() -> Service:
    return Service()


def _request(data: bytes) -> None:
    """The first byte chooses the method."""
    service = _service()
    if not data:
        return
    method = service.methods[data[0] % len(service.methods)]
    try:
        service.call(method, data[1:])
    except Refused as refused:
        check_told(refused.error)
        if not refused.error.request_id:
            raise AssertionError("no record can be found for it") from refused


def _answer(data: bytes) -> None:
    """What the client makes of the details of a failed call."""
    error = wire.from_rpc_error(grpc.StatusCode.UNAVAILABLE, "", [(wire.DETAILS_KEY, data)])
    assert error.retry_after is None or error.retry_after >= 0


def _vectors(file: str, *members: str) -> Callable[[], Iterator[bytes]]:
    """Seeds from a vector file: whatever these members hold, as hex or base64."""

    def seeds() -> Iterator[bytes]:
        for member, text in _texts(
            json.loads((_PROJECT / "tests" / "vectors" / file).read_bytes())
        ):
            if member in members:
                yield base64.b64decode(text) if member == "base64" else bytes.fromhex(text)

    return seeds


def _texts(value: Any, member: str = "") -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            for name, inner in value.items():
                yield from _texts(inner, name)
        case list():
            for inner in value:
                yield from _texts(inner, member)
        case str():
            yield member, value


def _shipped() -> Iterator[bytes]:
    for file in sorted((_PROJECT / "hsm_config").glob("*.toml")):
        yield file.read_bytes()


TARGETS: Mapping[str, Target] = {
    "envelope": Target(_envelope, 16_384, _vectors("envelope.json", "hex", "base64")),
    "context": Target(_context, 9_000, _vectors("context.json", "encoded")),
    "wrapped-key": Target(_wrapped_key, 256, _vectors("wrapped_key.json", "wrapped", "binding")),
    "audit-record": Target(_audit_record, 4096, _vectors("audit.json", "lines")),
    "state-record": Target(_state_record, 4096, _vectors("state.json", "records")),
    "configuration": Target(_configuration, 8192, _shipped),
    "request": Target(_request, 70_000),
    "frames": Target(_frames, 4096),
    "answer": Target(_answer, 5000),
}
