import socket
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from keycustody.v1 import key_service_pb2, session_key_service_pb2, signing_service_pb2
from tests.integration.agent.raw import (
    ADMIN_METHODS,
    BASE_POINT,
    METHODS,
    channel,
    code_of,
    send,
)
from tests.integration.command import Command

MALFORMED = {
    "not protobuf": b"\xff\xff\xff\xff",
    "a length beyond the end": b"\x0a\xff\xff\xff\xff\x0f",
    "a group that never ends": b"\x0b" * 200,
    "a wire type that does not exist": b"\x0f\x01",
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_bytes_get_a_code_and_leave_a_record(
    keycustody: Command, method: str, what: str
) -> None:
    principal = "admin" if method in ADMIN_METHODS else "demo"
    with channel(keycustody.socket(principal)) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            send(opened, method, MALFORMED[what])
    status, code, request = code_of(caught.value)
    assert (status, code) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    record = keycustody.records()[-1]
    assert (record["request"], record["principal"]) == (request, principal)
    assert (record["operation"], record["result"]) == (method.rpartition("/")[2], code)


@pytest.mark.parametrize("principal", ["demo", "stranger"])
def test_millions_of_empty_items_are_refused_unparsed(keycustody: Command, principal: str) -> None:
    agent = psutil.Process(keycustody.agent_pid())
    before = agent.memory_info().rss
    with channel(keycustody.socket(principal)) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            send(
                opened,
                "/keycustody.v1.SigningService/Sign",
                b"\x0a\x07release" + b"\x2a\x00" * 2**21,
            )
    assert code_of(caught.value)[1] == "INVALID_REQUEST"
    assert agent.memory_info().rss - before < 64 * 2**20


def test_a_name_that_is_too_long_is_refused_whole(keycustody: Command) -> None:
    name = "release".ljust(64, "-") + "-another"
    request = key_service_pb2.GetKeyRequest(key=name).SerializeToString()
    with channel(keycustody.socket("demo")) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            send(opened, "/keycustody.v1.KeyService/GetKey", request)
    assert code_of(caught.value)[1] == "INVALID_REQUEST"
    assert keycustody.records()[-1]["key"] == name[:64]


def test_text_that_is_not_utf8_is_malformed(keycustody: Command) -> None:
    with channel(keycustody.socket("demo")) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            send(opened, "/keycustody.v1.KeyService/GetKey", b"\x0a\x02\xff\xfe")
    assert code_of(caught.value)[1] == "INVALID_REQUEST"


def test_an_oversized_request_is_refused_by_the_core(keycustody: Command) -> None:
    with channel(keycustody.socket("demo")) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            send(opened, "/keycustody.v1.SigningService/Sign", bytes(9 * 2**20))
    assert code_of(caught.value)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("method", METHODS)
def test_a_service_answers_on_its_own_sockets_only(keycustody: Command, method: str) -> None:
    principal = "demo" if method in ADMIN_METHODS else "admin"
    with channel(keycustody.socket(principal)) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            send(opened, method, b"")
    assert code_of(caught.value)[0] is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 9,
        bytes(2**16),
    ],
    ids=["nothing", "HTTP 1", "a bad frame", "zeros"],
)
def test_raw_bytes_on_the_socket_disturb_nobody(keycustody: Command, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(keycustody.socket("demo")))
        raw.sendall(data)
    with channel(keycustody.socket("demo")) as opened:
        send(opened, "/keycustody.v1.KeyService/ListKeys", b"")


@pytest.mark.parametrize("principal", ["demo", "stranger", "admin"])
def test_health_and_reflection_answer_on_every_socket(keycustody: Command, principal: str) -> None:
    service = "AdminService" if principal == "admin" else "SigningService"
    with channel(keycustody.socket(principal)) as opened:
        health: Any = health_pb2_grpc.HealthStub(opened)
        for name in ("", f"keycustody.v1.{service}"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(opened)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        (listed,) = stub.ServerReflectionInfo(iter([asked]), timeout=5)
    names = {entry.name for entry in listed.list_services_response.service}
    assert f"keycustody.v1.{service}" in names


ITEM = signing_service_pb2.SignItem(digest=bytes(32))
VAGUE: dict[str, tuple[dict[str, Any], str]] = {
    "no algorithm": ({"algorithm": "", "items": [ITEM]}, "UNKNOWN_ALGORITHM"),
    "a lower case one": ({"algorithm": "ecdsa_sha_256", "items": [ITEM]}, "UNKNOWN_ALGORITHM"),
    "an unknown encoding": ({"ecdsa_encoding": 7, "items": [ITEM]}, "INVALID_REQUEST"),
    "no items": ({"items": []}, "INVALID_REQUEST"),
    "too many items": ({"items": [ITEM] * 1025}, "INVALID_REQUEST"),
}


@pytest.mark.parametrize("what", VAGUE)
def test_nothing_is_guessed_of_a_sign_request(keycustody: Command, what: str) -> None:
    fields, code = VAGUE[what]
    request = signing_service_pb2.SignRequest(
        **{"key": "release", "algorithm": "ECDSA_SHA_256", **fields}
    )
    with channel(keycustody.socket("demo")) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            send(opened, "/keycustody.v1.SigningService/Sign", request.SerializeToString())
    assert code_of(caught.value)[1] == code


def test_an_empty_item_fails_alone(keycustody: Command) -> None:
    request = signing_service_pb2.SignRequest(
        key="release",
        algorithm="ECDSA_SHA_256",
        items=[signing_service_pb2.SignItem(), signing_service_pb2.SignItem(message=b"")],
    )
    with channel(keycustody.socket("demo")) as opened:
        data = send(opened, "/keycustody.v1.SigningService/Sign", request.SerializeToString())
    first, second = signing_service_pb2.SignResponse.FromString(data).results
    assert first.error.code == "INVALID_REQUEST"
    assert second.WhichOneof("result") == "signature"


@pytest.mark.parametrize(
    ("point", "suite", "code"),
    [
        (b"", 1, "INVALID_POINT"),
        (b"\x04" + bytes(64), 1, "INVALID_POINT"),
        (b"\x02" + bytes(32), 1, "INVALID_POINT"),
        (b"\x00", 1, "INVALID_POINT"),
        (None, 0, "INVALID_REQUEST"),
        (None, 2, "INVALID_REQUEST"),
    ],
)
def test_a_session_needs_a_valid_point_and_suite(
    keycustody: Command, point: bytes | None, suite: int, code: str
) -> None:
    request = session_key_service_pb2.GenerateSessionKeyRequest(
        key="invoices", suite=suite, client_point=BASE_POINT if point is None else point
    )
    method = "/keycustody.v1.SessionKeyService/GenerateSessionKey"
    with channel(keycustody.socket("demo")) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            send(opened, method, request.SerializeToString())
    assert code_of(caught.value)[1] == code
