"""The client with TLS: whom it accepts, and one clear sentence for each way that it does not."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

import keycustody
from keycustody import Tls, errors
from tests.authority import DAY, Authority, Issued, replace
from tests.integration.command import running
from tests.integration.identity.conftest import BILLING, TlsAgent, free_port, name, prepared


def pem(folder: Path, authority: Authority) -> Path:
    """The authority's certificate as a file."""
    path = folder / "authority.pem"
    replace(path, authority.pem)
    return path


def mine(agent: TlsAgent, folder: Path, issued: Issued | None = None) -> dict[str, Any]:
    """The caller's own files."""
    certificate, key = (issued or agent.billing()).write(folder, "mine")
    return {"certificate": certificate, "key": key}


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("how", ["ca", "pin-file", "pin-fingerprint"])
def test_accepted(tls_agent: TlsAgent, tmp_path: Path, how: str, unix: bool) -> None:
    tls_agent.trust(tls_agent.clients)
    shown = ssl.get_server_certificate(("127.0.0.1", tls_agent.port))
    pin = tmp_path / "agent.pem"
    pin.write_text(shown)
    fingerprint = "sha256:" + fingerprint_of(shown)
    own = mine(tls_agent, tmp_path)
    tls = {
        "ca": lambda: Tls(ca=pem(tmp_path, tls_agent.authority), **own),
        "pin-file": lambda: Tls(pin=pin, **own),
        "pin-fingerprint": lambda: Tls(pin=fingerprint, **own),
    }[how]()
    where = tls_agent.socket if unix else tls_agent.address
    with keycustody.connect(where, tls=tls) as agent:
        assert agent.key("release").name == "release"
        assert agent.sign("release", b"x", algorithm="ECDSA_SHA_256")


def fingerprint_of(shown: str) -> str:
    """The fingerprint of a certificate in PEM."""
    return x509.load_pem_x509_certificate(shown.encode()).fingerprint(hashes.SHA256()).hex()


def refused(where: str | Path, tls: Tls, kind: type[keycustody.KeycustodyError]) -> str:
    """The sentence with which it is refused."""
    with keycustody.connect(where, tls=tls) as agent, pytest.raises(kind) as caught:
        agent.keys()
    assert type(caught.value) is kind
    assert "\n" not in caught.value.message
    return caught.value.message


def test_another_authority_than_ours(tls_agent: TlsAgent, tmp_path: Path) -> None:
    own = mine(tls_agent, tmp_path)
    for authority in (Authority("Other"), Authority("Agents")):
        tls = Tls(ca=pem(tmp_path, authority), **own)
        assert "neither the pinned one nor" in refused(
            tls_agent.address, tls, errors.AgentNotTrusted
        )


def test_another_certificate_than_the_pinned_one(tls_agent: TlsAgent, tmp_path: Path) -> None:
    own = mine(tls_agent, tmp_path)
    other = tls_agent.authority.server()
    pin, _ = other.write(tmp_path, "other")
    message = refused(tls_agent.address, Tls(pin=pin, **own), errors.AgentNotTrusted)
    assert "neither the pinned one nor" in message
    fingerprint = "sha256:" + other.certificate.fingerprint(hashes.SHA256()).hex(":")
    message = refused(tls_agent.address, Tls(pin=fingerprint, **own), errors.AgentNotTrusted)
    assert "another certificate than the pinned one" in message


def test_an_authority_is_no_pin(tls_agent: TlsAgent, tmp_path: Path) -> None:
    tls = Tls(pin=pem(tmp_path, tls_agent.authority), **mine(tls_agent, tmp_path))
    assert "give it as ca" in refused(tls_agent.address, tls, errors.CertificateUnusable)


def test_another_name(tls_agent: TlsAgent, tmp_path: Path) -> None:
    own = mine(tls_agent, tmp_path)
    ca = pem(tmp_path, tls_agent.authority)
    tls = Tls(ca=ca, server_name="other.example.org", **own)
    assert "'other.example.org'" in refused(tls_agent.address, tls, errors.AgentNotTrusted)
    tls = Tls(ca=ca, **own)
    assert "'127.0.0.1'" in refused(f"127.0.0.1:{tls_agent.port}", tls, errors.AgentNotTrusted)


@pytest.mark.parametrize("why", ["expired", "other-authority"])
def test_our_certificate_is_refused(tls_agent: TlsAgent, tmp_path: Path, why: str) -> None:
    issued = {
        "expired": lambda: tls_agent.clients.issue(name("x.example.org"), end=-DAY / 2),
        "other-authority": lambda: Authority("Other").issue(name("x.example.org")),
    }[why]()
    tls = Tls(ca=pem(tmp_path, tls_agent.authority), **mine(tls_agent, tmp_path, issued))
    message = refused(tls_agent.address, tls, errors.Unauthenticated)
    assert "refused our certificate" in message


def test_our_certificate_is_nobodys(tls_agent: TlsAgent, tmp_path: Path) -> None:
    issued = tls_agent.clients.issue(name("x.example.org"))
    tls = Tls(ca=pem(tmp_path, tls_agent.authority), **mine(tls_agent, tmp_path, issued))
    message = refused(tls_agent.address, tls, errors.Unauthenticated)
    assert "No subject alternative name" in message


def test_nobody_listens(tls_agent: TlsAgent, tmp_path: Path) -> None:
    tls = Tls(ca=pem(tmp_path, tls_agent.authority), **mine(tls_agent, tmp_path))
    where = f"localhost:{free_port()}"
    assert "Nobody listens" in refused(where, tls, errors.AgentUnreachable)
    where = "nowhere.invalid:7443"
    assert "cannot be reached" in refused(where, tls, errors.AgentUnreachable)
    assert "There is no socket" in refused(tmp_path / "none.sock", tls, errors.AgentUnreachable)


@contextmanager
def impostor(issued: Issued, folder: Path, **options: ssl.TLSVersion) -> Iterator[str]:
    """A TLS server that is no agent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for option, value in options.items():
        setattr(context, option, value)
    context.load_cert_chain(*issued.write(folder, "impostor"))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                connection, _ = server.accept()
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(1)
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"localhost:{server.getsockname()[1]}"
        thread.join(10)


def test_an_agent_whose_certificate_has_expired(tls_agent: TlsAgent, tmp_path: Path) -> None:
    tls = Tls(ca=pem(tmp_path, tls_agent.authority), **mine(tls_agent, tmp_path))
    with impostor(tls_agent.authority.server(end=-DAY / 2), tmp_path) as where:
        assert "has expired" in refused(where, tls, errors.AgentNotTrusted)


def test_an_agent_without_tls_1_3(tls_agent: TlsAgent, tmp_path: Path) -> None:
    tls = Tls(ca=pem(tmp_path, tls_agent.authority), **mine(tls_agent, tmp_path))
    old = ssl.TLSVersion.TLSv1_2
    with impostor(tls_agent.authority.server(), tmp_path, maximum_version=old) as where:
        assert "TLS 1.3" in refused(where, tls, errors.AgentNotTrusted)


def test_without_tls_where_it_is_needed(tls_agent: TlsAgent, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="mutual TLS alone"):
        keycustody.connect(tls_agent.address)
    own = mine(tls_agent, tmp_path)
    with pytest.raises(errors.InvalidRequest, match="exactly one"):
        Tls(**own)
    plain = tls_agent.command.socket("demo")
    tls = Tls(ca=pem(tmp_path, tls_agent.authority), **own)
    assert "does not speak TLS" in refused(plain, tls, errors.AgentUnreachable)


def test_our_certificate_is_renewed(tls_agent: TlsAgent, tmp_path: Path) -> None:
    """From the next call on; a broken one is said, and a good one after it is taken."""
    own = mine(tls_agent, tmp_path, tls_agent.clients.issue(name("web.example.org")))
    with keycustody.connect(
        tls_agent.address, tls=Tls(ca=pem(tmp_path, tls_agent.authority), **own)
    ) as agent:
        assert agent.keys()
        assert tls_agent.command.records()[-1]["principal"] == "web"
        tls_agent.billing().write(tmp_path, "mine")
        assert agent.keys()
        assert tls_agent.command.records()[-1]["via"] == f"tls:{BILLING}"
        own["certificate"].write_text("broken")
        with pytest.raises(errors.CertificateUnusable):
            agent.keys()
        tls_agent.billing().write(tmp_path, "mine")
        assert agent.keys()


def test_the_command(tls_agent: TlsAgent, tmp_path: Path) -> None:
    own = mine(tls_agent, tmp_path)
    environment: dict[str, Any] = {
        "KEYCUSTODY_SOCKET": tls_agent.address,
        "KEYCUSTODY_TLS_CERTIFICATE": str(own["certificate"]),
        "KEYCUSTODY_TLS_KEY": str(own["key"]),
        "KEYCUSTODY_TLS_CA": str(pem(tmp_path, tls_agent.authority)),
    }
    listed = tls_agent.command("keys", "list", **environment)
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert b"release" in listed.stdout
    status = tls_agent.command("status", **environment)
    assert b"operators' own socket" in status.stderr


@pytest.mark.slow
def test_a_swapped_agent(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same address and name, another key: first the connection is lost, then refused."""
    agent = prepared(tmp_path_factory.mktemp("swapped"))
    folder = agent.files
    pin, _ = agent.authority.server().write(folder, "agent")
    kept = folder / "pinned.pem"
    kept.write_bytes(pin.read_bytes())
    with keycustody.connect(agent.address, tls=Tls(pin=kept, **mine(agent, folder))) as client:
        with running(agent.command):
            assert client.keys()
        agent.authority.server().write(folder, "agent")
        with running(agent.command):
            with pytest.raises((errors.AgentGone, errors.AgentNotTrusted)):
                client.keys()
            with pytest.raises(errors.AgentNotTrusted):
                client.keys()
