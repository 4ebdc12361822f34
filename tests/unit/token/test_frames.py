"""Frames survive any cutting, and what is no frame is refused."""

import socket
import threading

import msgspec
import pytest

from keycustody.errors import MessageTooLarge
from keycustody.token.api import (
    MAX_FRAME_BYTES,
    Agree,
    AnyReply,
    AnyRequest,
    ChangePin,
    Created,
    CreateVersion,
    Decrypt,
    Delivered,
    Done,
    Failed,
    Fault,
    FoundObject,
    GenerateSessionKey,
    KeyRef,
    Login,
    Open,
    Outputs,
    Recipient,
    RewrapSessionKeys,
    Scan,
    Scanned,
    Secret,
    SelfTest,
    SessionKey,
    Sign,
    TokenInfo,
    Unwrapped,
    UnwrapSessionKeys,
    WriteData,
    reply_type,
)
from keycustody.token.frames import BlockingFrames, FrameDecoder, encode

REF = KeyRef("k.v1", bytes(16), "sign", "EC_P256", bytes(32))
TO = Recipient(bytes(65), REF)
REQUESTS: list[tuple[AnyRequest, type]] = [
    (Open("/m.so", "softhsm2", "label"), TokenInfo),
    (Login(Secret(b"pin")), Done),
    (ChangePin(Secret(b"pin"), Secret(b"new")), Done),
    (Sign(REF, "ECDSA_SHA_256", [b"", b"x"]), Outputs),
    (Agree(REF, [bytes(65)]), Outputs),
    (Decrypt(REF, "RSA_OAEP_SHA_1", [bytes(256)]), Outputs),
    (GenerateSessionKey(REF, "k", 1, 1, bytes(32), TO), SessionKey),
    (UnwrapSessionKeys(REF, "k", 1, 1, bytes(32), [bytes(72)], TO), Unwrapped),
    (RewrapSessionKeys(REF, REF, "k", 1, 2, 1, bytes(32), [bytes(72)]), Outputs),
    (Scan(), Scanned),
    (CreateVersion("k.v1", bytes(16), "sign", "EC_P256"), Created),
    (SelfTest(REF), Done),
    (WriteData("application", "label", b"value"), Done),
]
REPLIES: list[AnyReply] = [
    TokenInfo("label", "serial", "manufacturer", "model"),
    Done(),
    Outputs([b"x", Fault("CODE", "message")]),
    SessionKey(bytes(72), Delivered(sealed=bytes(40), delivery_point=bytes(65))),
    Unwrapped([Delivered(plain=bytes(32)), Fault("CODE", "message")]),
    Scanned([FoundObject("private", "l", b"i", {"TOKEN": True, "LIST": [1, 2], "X": None})], ["p"]),
    Created(b"der"),
    Failed("CODE", "message", "cause"),
]


#: A reply with a member that is not its own, which is skipped, however deep it goes.
NESTED = b"\x82\xa4type\xa4Done\xa1x" + b"\x91" * 3000 + b"\xc0"


@pytest.mark.parametrize(("request_", "answer"), REQUESTS)
def test_requests_survive_and_name_their_reply(request_: AnyRequest, answer: type) -> None:
    assert list(FrameDecoder(AnyRequest).feed(encode(request_))) == [request_]
    assert reply_type(request_) is answer


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 5, 7, 64, 1_000_000])
def test_a_stream_may_come_in_any_pieces(piece: int) -> None:
    stream = b"".join(map(encode, REPLIES))
    decoder: FrameDecoder[AnyReply] = FrameDecoder(AnyReply)
    seen: list[AnyReply] = []
    for start in range(0, len(stream), piece):
        seen += decoder.feed(stream[start : start + piece])
    assert seen == REPLIES


@pytest.mark.parametrize(
    "stream",
    [
        (MAX_FRAME_BYTES + 1).to_bytes(4),
        b"\xff" * 4,
        b"\0\0\0\0",
        b"\0\0\0\1\xc1",
        b"\0\0\0\1\x80",
        encode(Scan()),
        b"\0\0\0\2" + encode(Done())[4:6],
        len(NESTED).to_bytes(4) + NESTED,
    ],
)
def test_what_is_no_reply_is_refused(stream: bytes) -> None:
    decoder: FrameDecoder[AnyReply] = FrameDecoder(AnyReply)
    with pytest.raises(ValueError):  # noqa: PT011 (msgspec says it in many ways)
        list(decoder.feed(stream))


def test_what_is_too_long_is_not_sent() -> None:
    with pytest.raises(MessageTooLarge):
        encode(Created(bytes(MAX_FRAME_BYTES)))


def test_a_frame_as_long_as_the_limit_passes() -> None:
    overhead = len(encode(Created(bytes(100_000)))) - 4 - 100_000
    frame = encode(Created(bytes(MAX_FRAME_BYTES - overhead)))
    assert len(frame) == MAX_FRAME_BYTES + 4
    assert len(list(FrameDecoder(AnyReply).feed(frame))) == 1


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 10])
def test_the_child_sees_the_end_wherever_it_comes(cut: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frames: BlockingFrames[AnyRequest] = BlockingFrames(theirs, AnyRequest)
        ours.sendall(encode(Scan()) + encode(Login(Secret(b"pin")))[:cut])
        ours.shutdown(socket.SHUT_WR)
        assert frames.read() == Scan()
        assert frames.read() is None


def test_both_ends_fit() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        large = Outputs([bytes(3_000_000)])
        writer = threading.Thread(target=BlockingFrames(theirs, AnyRequest).write, args=(large,))
        writer.start()
        decoder: FrameDecoder[AnyReply] = FrameDecoder(AnyReply)
        seen: list[AnyReply] = []
        while not seen:
            seen += decoder.feed(ours.recv(65536))
        writer.join()
    assert seen == [large]


def test_no_repr_shows_a_secret() -> None:
    canary = b"canary"
    shown = [
        Login(Secret(canary)),
        Outputs([canary]),
        Decrypt(REF, "RSA_OAEP_SHA_1", [canary]),
        Delivered(plain=canary),
        SessionKey(b"", Delivered(plain=canary)),
        Unwrapped([Delivered(plain=canary)]),
    ]
    assert all("canary" not in repr(value) for value in shown)


def test_a_value_of_the_wrong_size_is_no_request() -> None:
    frame = encode(WriteData("a", "l", bytes(4097)))
    with pytest.raises(msgspec.ValidationError):
        list(FrameDecoder(AnyRequest).feed(frame))
