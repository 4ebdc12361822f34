"""A TLS handshake of our own, before gRPC's: it says why, where gRPC says only UNAVAILABLE.

`look` connects as gRPC will, with the same files, and reads until the agent has spoken HTTP/2,
since in TLS 1.3 an agent refuses a certificate only after the client is content. It raises
`AgentUnreachable` (nobody there), `AgentNotTrusted` (not the agent we know) or `Unauthenticated`
(it does not know us), each in one sentence. Nothing of the application is sent.
"""

import hashlib
import socket
import ssl
from dataclasses import dataclass
from typing import Final

from keycustody.client.reach import nobody
from keycustody.client.tls import Material, Tls
from keycustody.errors import (
    AgentNotTrusted,
    AgentUnreachable,
    CertificateUnusable,
    KeycustodyError,
    Unauthenticated,
)

#: HTTP/2's connection preface and an empty SETTINGS frame (RFC 9113, 3.4).
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
#: OpenSSL's verification results (openssl-verification-options(1), X509_V_ERR_*).
_NOT_YET, _EXPIRED, _NAMES = 9, 10, (62, 64)


@dataclass(frozen=True)
class Place:
    """Where an agent is: a host and port, or with port 0 a Unix socket's path."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def connect(self, timeout: float) -> socket.socket:
        """Return a connection. Raises `AgentUnreachable`."""
        try:
            if self.port:
                return socket.create_connection((self.host, self.port), timeout)
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(timeout)
            made.connect(self.host)
        except TimeoutError as error:
            raise nobody(f"Nobody answers on {self}; is the address right?") from error
        except ConnectionRefusedError as error:
            raise nobody(f"Nobody listens on {self}; is the agent running?") from error
        except OSError as error:
            raise AgentUnreachable(f"{self} cannot be reached: {error.strerror}.") from error
        return made


def pinned(place: Place, tls: Tls, timeout: float) -> bytes:
    """Return the agent's certificate, DER, if it has the pinned fingerprint. It is not judged."""
    context = _context(tls)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            place.connect(timeout) as plain,
            context.wrap_socket(plain, server_hostname=tls.server_name) as secure,
        ):
            shown = secure.getpeercert(binary_form=True) or b""
    except OSError as error:
        raise _meaning(error, place, "") from error
    if hashlib.sha256(shown).hexdigest() != tls.fingerprint:
        raise AgentNotTrusted(
            f"The agent on {place} shows another certificate than the pinned one; do not use it "
            "before its operator told you why."
        )
    return shown


def look(place: Place, tls: Tls, material: Material, timeout: float) -> None:
    """Connect as gRPC will, and raise what keeps it from that."""
    context = _context(tls)
    try:
        context.load_verify_locations(cadata=material.roots.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError) as error:
        raise CertificateUnusable(f"{tls.ca or tls.pin}: holds no certificates in PEM.") from error
    try:
        with (
            place.connect(timeout) as plain,
            context.wrap_socket(plain, server_hostname=material.name) as secure,
        ):
            _listen(secure, place)
    except OSError as error:
        raise _meaning(error, place, material.name) from error


def _listen(secure: ssl.SSLSocket, place: Place) -> None:
    """Wait for the first word of an agent that has proved itself, and now sees who we are."""
    try:
        secure.sendall(_PREFACE)
        if secure.recv(1):
            return
    except TimeoutError:
        raise
    except OSError as error:
        raise _refused_us(place) from error
    # gRPC ends the connection, and sends no alert.
    raise _refused_us(place)


def _refused_us(place: Place) -> Unauthenticated:
    return Unauthenticated(
        f"The agent on {place} refused our certificate: it has expired, is not for clients, or is "
        "not of an authority that the agent knows."
    )


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # As gRPC: a root need not be self-signed, so that a certificate can be pinned.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise CertificateUnusable(
            f"{tls.certificate} and {tls.key} are not a certificate and its key, in PEM and "
            "without a password."
        ) from error
    return context


def _no_password() -> str:
    """OpenSSL would ask at the terminal."""
    raise ValueError("the key has a password")


def _meaning(error: OSError, place: Place, name: str) -> KeycustodyError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return AgentNotTrusted(_untrusted(error, place, name))
    if isinstance(error, ssl.SSLError) and error.reason:
        return _refused(error.reason, place)
    if isinstance(error, TimeoutError):
        return AgentUnreachable(f"What listens on {place} does not answer; is it an agent?")
    return AgentUnreachable(f"What listens on {place} ended the connection; is it an agent?")


def _untrusted(error: ssl.SSLCertVerificationError, place: Place, name: str) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return f"The certificate of the agent on {place} has expired; its operator has to renew it."
    if code == _NOT_YET:
        return f"The certificate of the agent on {place} is not valid yet; check the clocks."
    if code in _NAMES:
        return (
            f"The certificate of the agent on {place} is not for {name!r}; name the host as the "
            "certificate does, or say server_name."
        )
    return (
        f"The agent on {place} shows a certificate that is neither the pinned one nor of the "
        "authority that you require; do not use it before its operator told you why."
    )


def _refused(reason: str, place: Place) -> KeycustodyError:
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
        return AgentUnreachable(f"What listens on {place} does not speak TLS; name it without.")
    if "PROTOCOL_VERSION" in reason or reason == "UNSUPPORTED_PROTOCOL":
        return AgentNotTrusted(f"What listens on {place} does not speak TLS 1.3; it is no agent.")
    return AgentUnreachable(f"What listens on {place} does not speak TLS as an agent does.")
