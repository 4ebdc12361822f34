"""Who gets through a listener with TLS, at the handshake and at each call after it."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import grpc
import psutil
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from keycustody.v1 import key_service_pb2, signing_service_pb2
from tests.authority import DAY, SERVER, Authority, Issued, replace, uri
from tests.integration.agent.raw import code_of, send
from tests.integration.identity.conftest import BILLING, TlsAgent, name

LIST = "/keycustody.v1.KeyService/ListKeys"
SIGN = "/keycustody.v1.SigningService/Sign"


@contextmanager
def channel(agent: TlsAgent, issued: Issued, target: str | None = None) -> Iterator[grpc.Channel]:
    """A connection of its own with this certificate."""
    credentials = grpc.ssl_channel_credentials(agent.authority.pem, issued.key_pem, issued.pem)
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.ssl_target_name_override", "localhost"),
    ]
    where = target or agent.address
    with grpc.secure_channel(where, credentials, options=options) as opened:
        yield opened


def refusal(opened: grpc.Channel, method: str = LIST) -> tuple[grpc.StatusCode, str, str]:
    """How a call fails."""
    with pytest.raises(grpc.RpcError) as caught:
        send(opened, method, b"")
    return code_of(caught.value)


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_a_caller_with_a_certificate(tls_agent: TlsAgent, unix: bool) -> None:
    target = f"unix:{tls_agent.socket}" if unix else None
    with channel(tls_agent, tls_agent.billing(), target) as opened:
        answer = key_service_pb2.ListKeysResponse.FromString(send(opened, LIST, b""))
    assert [key.name for key in answer.keys] == ["release"]
    record = tls_agent.command.records()[-1]
    assert (record["principal"], record["via"]) == ("billing", f"tls:{BILLING}")


def not_ours() -> dict[str, Callable[[TlsAgent], Issued]]:
    """Certificates that the handshake itself refuses: gRPC tells nobody why."""
    return {
        "other-authority": lambda _agent: Authority("Other").issue(uri(BILLING)),
        "twin-authority": lambda _agent: Authority("Clients").issue(uri(BILLING)),
        "expired": lambda agent: agent.clients.issue(uri(BILLING), end=-DAY / 2),
        "not-yet": lambda agent: agent.clients.issue(uri(BILLING), start=DAY),
        "for-servers": lambda agent: agent.clients.issue(uri(BILLING), usage=SERVER),
    }


@pytest.mark.parametrize("which", not_ours())
def test_refused_at_the_handshake(tls_agent: TlsAgent, which: str) -> None:
    with channel(tls_agent, not_ours()[which](tls_agent)) as opened:
        assert refusal(opened)[0] is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([], id="common-name-alone"),
        pytest.param([name(BILLING)], id="spiffe-id-as-dns"),
        pytest.param([uri(BILLING), uri("spiffe://example.org/x")], id="two-uris"),
        pytest.param([uri(BILLING), name("web.example.org")], id="two-principals"),
        pytest.param([uri("spiffe://example.org/stranger")], id="nobody"),
    ],
)
def test_refused_at_the_call(tls_agent: TlsAgent, names: list[x509.GeneralName]) -> None:
    issued = tls_agent.clients.issue(*names, common_name=BILLING)
    with channel(tls_agent, issued) as opened:
        status, code, request = refusal(opened)
    assert (status, code) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    record = tls_agent.command.records()[-1]
    assert record["request"] == request
    assert (record["principal"], record["result"]) == ("", "UNAUTHENTICATED")
    assert record["via"].startswith("tls:sha256:")


def test_no_certificate_no_connection(tls_agent: TlsAgent) -> None:
    credentials = grpc.ssl_channel_credentials(tls_agent.authority.pem)
    with grpc.secure_channel(tls_agent.address, credentials) as opened:
        assert refusal(opened)[0] is grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(tls_agent.address) as opened:
        assert refusal(opened)[0] is grpc.StatusCode.UNAVAILABLE


NO_HANDSHAKE = {
    "nothing": b"",
    "no TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a record without end": b"\x16\x03\x01\xff\xff" + bytes(100),
    "a hello cut short": b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    "a hello of 16 MiB announced": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff\x03\x03" + bytes(2**14),
    "records of no length": b"\x16\x03\x03\x00\x00" * 10_000,
    "alerts": b"\x15\x03\x03\x00\x02\x01\x28" * 1000,
    "data before the handshake": b"\x17\x03\x03\x40\x00" + bytes(2**14),
    "zeros": bytes(2**16),
}


@pytest.mark.parametrize("what", NO_HANDSHAKE)
def test_what_is_no_handshake_disturbs_nobody(tls_agent: TlsAgent, what: str) -> None:
    agent = psutil.Process(tls_agent.command.agent_pid())
    before = agent.memory_info().rss
    with ExitStack() as stack:
        for _ in range(50):  # and each stays, half open
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", tls_agent.port)))
            with suppress(OSError):
                raw.sendall(NO_HANDSHAKE[what])
        with channel(tls_agent, tls_agent.billing()) as opened:
            assert send(opened, LIST, b"")
        assert agent.memory_info().rss - before < 64 * 2**20


def test_handshakes_that_break_off_by_the_thousand_end_nothing(tls_agent: TlsAgent) -> None:
    """gRPC crashed where one handshake replaced the certificates that another was about to use."""
    pid = tls_agent.command.agent_pid()
    for _ in range(40):
        with ExitStack() as stack:
            for data in NO_HANDSHAKE.values():
                for _ in range(5):
                    place = ("127.0.0.1", tls_agent.port)
                    raw = stack.enter_context(socket.create_connection(place))
                    with suppress(OSError):
                        raw.sendall(data)
    with channel(tls_agent, tls_agent.billing()) as opened:
        assert send(opened, LIST, b"")
    assert tls_agent.command.agent_pid() == pid


def test_operators_are_not_served_here(tls_agent: TlsAgent) -> None:
    with channel(tls_agent, tls_agent.billing()) as opened:
        status = refusal(opened, "/keycustody.v1.AdminService/GetStatus")[0]
    assert status is grpc.StatusCode.UNIMPLEMENTED


def test_health_and_reflection_are_behind_the_same_gate(tls_agent: TlsAgent) -> None:
    def ask(opened: grpc.Channel) -> list[Any]:
        health: Any = health_pb2_grpc.HealthStub(opened)
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(opened)
        request = health_pb2.HealthCheckRequest()
        services = reflection_pb2.ServerReflectionRequest(list_services="")
        calls: list[Callable[[], Any]] = [
            lambda: health.Check(request, timeout=5),
            lambda: next(health.Watch(request, timeout=5)),
            lambda: next(reflection.ServerReflectionInfo(iter([services]), timeout=5)),
        ]
        answers = []
        for call in calls:
            try:
                answers.append(call())
            except grpc.RpcError as error:
                answers.append(code_of(error)[0])
        return answers

    with channel(tls_agent, tls_agent.billing()) as opened:
        check, watch, reflected = ask(opened)
        assert check.status == watch.status == health_pb2.HealthCheckResponse.SERVING
        assert len(reflected.list_services_response.service) > 3
    with channel(tls_agent, tls_agent.clients.issue(name("nobody.example.org"))) as opened:
        assert ask(opened) == [grpc.StatusCode.UNAUTHENTICATED] * 3


def test_tls_1_2_connects_and_gets_nothing(tls_agent: TlsAgent) -> None:
    """gRPC has no lowest version, so the call is refused: spoken by hand, as its client knows
    no highest version either."""
    certificate, key = tls_agent.billing().write(tls_agent.files, "old-client")
    context = ssl.create_default_context(cadata=tls_agent.authority.pem.decode())
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert b"TLS 1.3" in by_hand(context, tls_agent)


def by_hand(context: ssl.SSLContext, agent: TlsAgent) -> bytes:
    """Call ListKeys in HTTP/2 written by hand; returns what came back until the trailers."""

    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return (
            len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
        )

    def literal(key: str, value: str) -> bytes:
        return b"\0" + bytes([len(key)]) + key.encode() + bytes([len(value)]) + value.encode()

    headers = {":method": "POST", ":scheme": "https", ":path": LIST, ":authority": "localhost"}
    headers |= {"content-type": "application/grpc", "te": "trailers"}
    block = b"".join(literal(key, value) for key, value in headers.items())
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, block)
    sent += frame(0, 1, 1, bytes(5))
    with (
        socket.create_connection(("127.0.0.1", agent.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        assert tls.version() == "TLSv1.2"
        tls.sendall(sent)
        answer = b""
        while b"grpc-message" not in answer:
            answer += tls.recv(65536)
        return answer


@pytest.fixture
def restored(tls_agent: TlsAgent) -> Iterator[TlsAgent]:
    """The shared agent, whose files are put back."""
    yield tls_agent
    tls_agent.trust(tls_agent.clients)
    tls_agent.authority.server().write(tls_agent.files, "agent")


def test_an_authority_removed_while_a_connection_lives(restored: TlsAgent) -> None:
    with channel(restored, restored.billing()) as opened:
        assert send(opened, LIST, b"")
        restored.trust(Authority("Successor"))
        assert refusal(opened)[1] == "UNAUTHENTICATED"
        restored.trust(Authority("Successor"), restored.clients)
        assert send(opened, LIST, b"")


def test_broken_files_change_nothing_but_the_status(restored: TlsAgent) -> None:
    def findings() -> str:
        with restored.command.connect("admin") as admin:
            return "\n".join(admin.status().findings)

    with channel(restored, restored.billing()) as opened:
        for file in ("clients.pem", "agent.pem", "agent.key"):
            replace(restored.files / file, b"broken")
        assert send(opened, LIST, b"")
    with channel(restored, restored.billing()) as opened:  # a handshake, too
        assert send(opened, LIST, b"")
    assert "clients.pem: holds no certificates" in findings()
    assert "agent.pem: holds no certificates" in findings()
    restored.trust(restored.clients)
    restored.authority.server().write(restored.files, "agent")
    assert findings() == ""


def test_the_certificate_is_renewed_without_losing_a_call(restored: TlsAgent) -> None:
    """Many calls under way on one connection, while new connections get the new certificate."""
    request = signing_service_pb2.SignRequest(
        key="release",
        algorithm="ECDSA_SHA_256",
        items=[signing_service_pb2.SignItem(message=b"x")] * 100,
    ).SerializeToString()

    def presented() -> int:
        pem = ssl.get_server_certificate(("127.0.0.1", restored.port))
        return x509.load_pem_x509_certificate(pem.encode()).serial_number

    with channel(restored, restored.billing()) as opened:
        assert send(opened, LIST, b"")
        method: Any = opened.unary_unary(SIGN)
        calls: list[Any] = [method.future(request, timeout=60) for _ in range(20)]
        renewed = restored.authority.server()
        renewed.write(restored.files, "agent")
        wait_for(lambda: presented() == renewed.certificate.serial_number)
        calls += [method.future(request, timeout=60) for _ in range(5)]
        for call in calls:
            answer = signing_service_pb2.SignResponse.FromString(call.result())
            assert all(result.signature for result in answer.results)
