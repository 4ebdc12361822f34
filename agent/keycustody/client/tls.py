"""TLS of the client: who it is, which agent it accepts, and the files behind both.

`Tls` is what a caller says; `material` is what its files hold at one moment. The agent is known by
an authority, or by its own certificate: then no authority counts. gRPC takes a certificate that is
its only root for itself alone, unless it is an authority's, which is refused here.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keycustody.errors import CertificateUnusable, InvalidRequest

CA_VARIABLE: Final = "KEYCUSTODY_TLS_CA"
PIN_VARIABLE: Final = "KEYCUSTODY_TLS_PIN"
CERTIFICATE_VARIABLE: Final = "KEYCUSTODY_TLS_CERTIFICATE"
KEY_VARIABLE: Final = "KEYCUSTODY_TLS_KEY"
NAME_VARIABLE: Final = "KEYCUSTODY_TLS_SERVER_NAME"

_FINGERPRINT: Final = re.compile(r"sha256:((?:[0-9a-fA-F]{2}:?){31}[0-9a-fA-F]{2})")

Path_ = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How to reach an agent with mutual TLS 1.3. Files are PEM, read again when they change.

    `certificate` (with what is between it and its authority) and `key` are the caller's own. The
    agent is accepted by exactly one of `ca`, a file of authorities, and `pin`, a file with the
    agent's own certificate (several while it is renewed) or its fingerprint, `sha256:` and hex.
    `server_name` is the name that the agent's certificate must have: without it, the host that is
    connected to; on a Unix socket `localhost`; with `pin`, a name that the pinned one has.
    """

    certificate: Path_
    key: Path_
    ca: Path_ | None = None
    pin: Path_ | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.ca is None) == (self.pin is None):
            raise InvalidRequest(
                f"Name exactly one of ca ({CA_VARIABLE}) and pin ({PIN_VARIABLE}): the authority "
                "of the agent's certificate, or that certificate itself."
            )

    @property
    def fingerprint(self) -> str | None:
        """The pinned certificate's SHA-256 in lower-case hex, if that is the pin."""
        found = _FINGERPRINT.fullmatch(os.fspath(self.pin)) if self.pin is not None else None
        return found[1].replace(":", "").lower() if found else None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it names."""
        accepted = None if self.fingerprint else self.pin
        named = (self.certificate, self.key, self.ca, accepted)
        return tuple(Path(path) for path in named if path is not None)


@dataclass(frozen=True)
class Material:
    """What the files held at one moment: roots to accept the agent by, ourselves, PEM, and the
    name that the agent's certificate must have."""

    roots: bytes
    certificate: bytes
    key: bytes
    name: str

    def __repr__(self) -> str:
        return "<keycustody.client.tls.Material>"


def from_environment() -> Tls | None:
    """What the environment says; None if it names no certificate. Raises `InvalidRequest`."""
    certificate, key, ca, pin, name = (
        os.environ.get(variable) or None
        for variable in (
            CERTIFICATE_VARIABLE,
            KEY_VARIABLE,
            CA_VARIABLE,
            PIN_VARIABLE,
            NAME_VARIABLE,
        )
    )
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InvalidRequest(f"Set both {CERTIFICATE_VARIABLE} and {KEY_VARIABLE}, or neither.")
    return Tls(certificate=certificate, key=key, ca=ca, pin=pin, server_name=name)


def material(tls: Tls, host: str, seen: bytes | None) -> Material:
    """Read the files. `seen` is the certificate, DER, that bore the pinned fingerprint.

    Raises `CertificateUnusable`.
    """
    certificate, key = read(tls.certificate), read(tls.key)
    if tls.ca is not None:
        return Material(read(tls.ca), certificate, key, tls.server_name or host)
    pins = [x509.load_der_x509_certificate(seen)] if seen is not None else _pinned(tls)
    for pin in pins:
        _check_no_authority(pin)
    name = tls.server_name or _name_of(pins[0])
    roots = b"".join(pin.public_bytes(Encoding.PEM) for pin in pins)
    return Material(roots, certificate, key, name)


def read(path: Path_) -> bytes:
    """Return a file's content. Raises `CertificateUnusable`."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CertificateUnusable(f"{path}: cannot be read: {error.strerror}.") from error


def _pinned(tls: Tls) -> list[x509.Certificate]:
    path = tls.pin or ""
    try:
        return x509.load_pem_x509_certificates(read(path))
    except ValueError as error:
        raise CertificateUnusable(
            f"{path}: is no certificate in PEM, nor a fingerprint (sha256: and 64 hex digits)."
        ) from error


def _check_no_authority(pin: x509.Certificate) -> None:
    try:
        constraints = pin.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound):
        return
    if constraints.ca:
        raise CertificateUnusable(
            "The pinned certificate is an authority's, which can issue others: give it as ca, or "
            "have the agent use a certificate with CA:FALSE."
        )


def _name_of(pin: x509.Certificate) -> str:
    try:
        names = pin.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise CertificateUnusable("The pinned certificate has no DNS name.") from error
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    for name in (*names.get_values_for_type(x509.DNSName), *addresses):
        if "*" not in name:
            return name
    raise CertificateUnusable(
        "The pinned certificate has no DNS name or IP address without a wildcard; say server_name."
    )
