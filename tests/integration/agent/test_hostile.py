"""Hostile requests to a running agent: each gets a code, costs bounded memory, and disturbs nobody.

The messages are made from the descriptors, so a new method or field is attacked as the others are.
"""

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from keycustody.errors import BY_CODE
from keycustody.v1 import session_key_service_pb2
from tests.integration.agent.raw import BASE_POINT, FILES, channel, code_of, send
from tests.integration.command import Command

#: What one hostile request may add to the agent's memory (docs/reliability.md).
MEGABYTES = 64
_INSIDES = re.compile(r"Traceback|\.py\b|CKR_|CKA_(?!ID)|0x[0-9a-f]{6}|site-packages|object at")
_VARINT, _BYTES = 0, 2
_ENDLESS = b"\xff" * 10
#: Every method that takes something.
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.input_type.fields
}


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def tagged(field: FieldDescriptor, data: bytes) -> bytes:
    """A length-delimited field."""
    return varint(field.number << 3 | _BYTES) + varint(len(data)) + data


def leaves(message: Descriptor, depth: int = 0) -> Iterator[tuple[list[FieldDescriptor], Any]]:
    """Every field below a message, with the path that leads there."""
    for field in message.fields:
        yield [field], field
        if field.message_type is not None and depth < 3:
            for path, leaf in leaves(field.message_type, depth + 1):
                yield [field, *path], leaf


def within(path: list[FieldDescriptor], data: bytes) -> bytes:
    """Wrap what is at the end of a path in the messages that lead there."""
    for field in reversed(path[:-1]):
        data = tagged(field, data)
    return data


def texts(message: Descriptor) -> Iterator[bytes]:
    """The message with each text in turn not UTF-8."""
    for path, leaf in leaves(message):
        if leaf.type == FieldDescriptor.TYPE_STRING:
            yield within(path, tagged(leaf, b"\xff\xfe"))


def lengths(message: Descriptor) -> Iterator[bytes]:
    """With the length of each text, bytes or message in turn 4 GiB, and beyond 2^64."""
    for path, leaf in leaves(message):
        if leaf.type in (
            FieldDescriptor.TYPE_STRING,
            FieldDescriptor.TYPE_BYTES,
            FieldDescriptor.TYPE_MESSAGE,
        ):
            for length in (varint(2**32 - 1), varint(2**31), _ENDLESS):
                yield within(path, varint(leaf.number << 3 | _BYTES) + length + b"x")


def extremes(message: Descriptor) -> Iterator[bytes]:
    """With each number in turn at the ends of what fits, and beyond."""
    for path, leaf in leaves(message):
        if leaf.cpp_type in (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_MESSAGE):
            continue
        for value in (2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1):
            yield within(path, varint(leaf.number << 3 | _VARINT) + varint(value))
        yield within(path, varint(leaf.number << 3 | _VARINT) + _ENDLESS)


def kinds(message: Descriptor) -> Iterator[bytes]:
    """With each field in turn of another kind than it is, of a number that none has, or empty."""
    for path, leaf in leaves(message):
        for kind in range(8):
            yield within(path, varint(leaf.number << 3 | kind))
    yield varint(2**29 - 1 << 3) + b"\1"
    yield b"\0" * 64


HOSTILE = {"text": texts, "lengths": lengths, "integers": extremes, "kinds": kinds}


@contextmanager
def bounded(command: Command) -> Iterator[None]:
    """Whatever the block sends, the agent goes on, its memory within bounds."""
    agent = psutil.Process(command.agent_pid())
    workers = {child.pid for child in agent.children()}
    before = agent.memory_info().rss
    yield
    assert agent.memory_info().rss - before < MEGABYTES * 2**20
    assert {child.pid for child in agent.children()} == workers
    with channel(command.socket("demo")) as opened:
        send(opened, "/keycustody.v1.KeyService/ListKeys", b"")


def check_refused(error: Any) -> str:
    """Assert that a refusal has a code and a sentence that tells nothing; return the code."""
    status, code, request = code_of(error)
    assert status not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), error
    assert code in BY_CODE, error
    assert request
    told = error.details()
    assert told.isprintable(), told
    assert len(told) < 1000
    assert not _INSIDES.search(told), told
    return code


def principal_of(method: str) -> str:
    return "admin" if "AdminService" in method else "demo"


@pytest.mark.parametrize("how", HOSTILE)
@pytest.mark.parametrize("method", METHODS)
def test_no_field_of_any_request(keycustody: Command, method: str, how: str) -> None:
    with bounded(keycustody), channel(keycustody.socket(principal_of(method))) as opened:
        for data in HOSTILE[how](METHODS[method].input_type):
            try:
                send(opened, method, data)
            except grpc.RpcError as error:
                code = check_refused(error)
                if how in ("text", "lengths"):
                    assert code == "INVALID_REQUEST"
            else:
                assert how in ("integers", "kinds"), data


def generate(pairs: int, size: int) -> bytes:
    """A request for a session key, good but for its context of so many pairs."""
    entry = session_key_service_pb2.GenerateSessionKeyRequest.ContextEntry
    good = session_key_service_pb2.GenerateSessionKeyRequest(
        key="invoices", suite=1, client_point=BASE_POINT
    )
    (field,) = (one for one in good.DESCRIPTOR.fields if one.name == "context")
    return good.SerializeToString() + b"".join(
        tagged(field, entry(key=f"{number}", value="v" * size).SerializeToString())
        for number in range(pairs)
    )


@pytest.mark.parametrize(
    ("pairs", "size", "code"),
    [
        (65, 0, "INVALID_CONTEXT"),
        (4000, 0, "INVALID_CONTEXT"),
        (64, 100_000, "INVALID_CONTEXT"),
        # More than any limit lets there be: refused before they are parsed.
        (100_000, 0, "INVALID_REQUEST"),
        (500_000, 0, "INVALID_REQUEST"),
    ],
)
def test_contexts_of_many_pairs(keycustody: Command, pairs: int, size: int, code: str) -> None:
    method = "/keycustody.v1.SessionKeyService/GenerateSessionKey"
    with bounded(keycustody), channel(keycustody.socket("demo")) as opened:
        send(opened, method, generate(64, 0))
        with pytest.raises(grpc.RpcError) as caught:
            send(opened, method, generate(pairs, size))
    assert check_refused(caught.value) == code


@pytest.mark.parametrize("encoding", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_what_unpacks_to_more_than_the_limit(
    keycustody: Command, encoding: grpc.Compression
) -> None:
    with bounded(keycustody), channel(keycustody.socket("demo")) as opened:
        call: Any = opened.unary_unary("/keycustody.v1.SigningService/Sign")
        with pytest.raises(grpc.RpcError) as caught:
            call(bytes(128 * 2**20), timeout=30, compression=encoding)
    assert code_of(caught.value)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "method",
    [
        "/",
        "//",
        "/keycustody.v1.SigningService/",
        "/keycustody.v1.SigningService/sign",
        "/a/b/c",
        "/keycustody.v1.SigningService/" + "x" * 4000,
    ],
    ids=["root", "empty", "no method", "lower case", "three parts", "4,000 letters"],
)
def test_methods_that_are_none(keycustody: Command, method: str) -> None:
    with bounded(keycustody), channel(keycustody.socket("demo")) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            send(opened, method, b"")
    assert code_of(caught.value)[0] is grpc.StatusCode.UNIMPLEMENTED


def test_more_metadata_than_there_may_be(keycustody: Command) -> None:
    with bounded(keycustody), channel(keycustody.socket("demo")) as opened:
        call: Any = opened.unary_unary("/keycustody.v1.KeyService/ListKeys")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=20, metadata=[("x", "y" * 2**16)] * 64)
    assert code_of(caught.value)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


# -- below gRPC: HTTP/2 frames by hand (RFC 9113) --------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """An HTTP/2 frame."""
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 8, 9
HELLO = PREFACE + frame(_SETTINGS)
#: An HPACK literal without indexing, of a short name and a value of zeros.
FIELD = b"\0\1x\x7f\x81\x7e" + b"y" * 16384
#: What is written to the socket. The agent may answer, close, or wait.
RAW: dict[str, bytes] = {
    "half a preface": PREFACE[:10],
    "a preface and no more": PREFACE,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "a frame of 16 MiB announced": HELLO + b"\xff\xff\xff\0\0\0\0\0\1",
    "100,000 settings": HELLO + frame(_SETTINGS) * 100_000,
    "100,000 pings": HELLO + frame(_PING, bytes(8)) * 100_000,
    "settings at their most": HELLO
    + frame(_SETTINGS, b"".join(struct.pack(">HI", one, 2**32 - 1) for one in range(1, 7))),
    "a window beyond 2^31": HELLO + frame(_WINDOW, struct.pack(">I", 2**31 - 1)) * 4,
    "a window of nothing": HELLO + frame(_WINDOW, bytes(4)),
    "data without a stream": HELLO + frame(_DATA, bytes(16384), stream=1),
    "data on stream 0": HELLO + frame(_DATA, b"x"),
    "an even stream": HELLO + frame(_HEADERS, b"\x82", flags=4, stream=2),
    "headers that never end": HELLO
    + frame(_HEADERS, FIELD[:16384], stream=1)
    + frame(_CONTINUATION, bytes(16384), stream=1) * 500,
    "20,000 streams reset at once": HELLO
    + b"".join(
        frame(_HEADERS, b"\x82", flags=4, stream=stream)
        + frame(_RESET, struct.pack(">I", 8), stream=stream)
        for stream in range(1, 40_001, 2)
    ),
    "a table entry that does not exist": HELLO
    + frame(_HEADERS, b"\xff\xff\xff\x0f", flags=4, stream=1),
    "kinds that do not exist": HELLO + b"".join(frame(kind, b"x") for kind in range(10, 256)),
    "8 MiB of 0xff": b"\xff" * 2**23,
}


@pytest.mark.parametrize("what", RAW)
def test_raw_bytes_on_a_socket(keycustody: Command, what: str) -> None:
    with bounded(keycustody), socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(2)
        raw.connect(str(keycustody.socket("demo")))
        try:
            raw.sendall(RAW[what])
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(2**16):
                pass
        except (ConnectionError, TimeoutError):
            pass  # closed in the middle, or left waiting: both are its right


def test_two_hundred_connections_that_say_nothing(keycustody: Command) -> None:
    opened = []
    with bounded(keycustody):
        for _ in range(200):
            raw = socket.socket(socket.AF_UNIX)
            raw.connect(str(keycustody.socket("demo")))
            raw.sendall(PREFACE[:5])
            opened.append(raw)
        with channel(keycustody.socket("demo")) as served:
            send(served, "/keycustody.v1.KeyService/ListKeys", b"")
        for raw in opened:
            raw.close()
