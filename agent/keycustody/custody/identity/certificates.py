"""The files of `[tls]`: read, checked against each other, and read again when they change.

`agent_certificate` and `trust` read them whole or raise: `CertificateUnusable`, and
`InsecurePermissions` for a private key that others can read. `Watched` keeps what was read last and
is good: a file that was broken later changes nothing but `problem`. `expiries` is for those who
warn before something ends. No gRPC here; a key is checked and handed on as PEM.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from keycustody.config import TlsSettings
from keycustody.custody.identity.trust import Trust
from keycustody.errors import CertificateUnusable, InsecurePermissions, KeycustodyError

#: A revocation list of a large authority is a few MiB; a certificate is a few KiB.
_MAX_BYTES = 32 * 2**20
_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
#: What a revocation list may say besides its entries, and is understood here.
_KNOWN_CRL_EXTENSIONS = {ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER}

T = TypeVar("T")
_Signature = tuple[tuple[int, ...] | None, ...]
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AgentCertificate:
    """What the agent shows of itself, PEM."""

    chain: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Expiry:
    """When something that a file holds begins and ends."""

    setting: str
    path: Path
    subject: str
    not_before: datetime
    not_after: datetime


def expiries(tls: TlsSettings) -> list[Expiry]:
    """Return how long each certificate and revocation list holds. Raises `CertificateUnusable`.

    The private key is not looked at, so that whoever may not read it can ask.
    """
    found = [
        Expiry(
            setting,
            path,
            certificate.subject.rfc4514_string(),
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )
        for setting, path in (
            ("tls.certificate", tls.certificate),
            ("tls.client_ca", tls.client_ca),
        )
        for certificate in _certificates(path)
    ]
    if tls.crl is not None:
        found += [
            Expiry(
                "tls.crl",
                tls.crl,
                crl.issuer.rfc4514_string(),
                crl.last_update_utc,
                _next_update(tls.crl, crl),
            )
            for crl in _crls(tls.crl)
        ]
    return found


def agent_certificate(tls: TlsSettings, now: datetime) -> AgentCertificate:
    """Return the agent's certificate, with its chain, and its key: they fit, and hold now."""
    path = tls.certificate
    chain = _certificates(path)
    _check_agents(path, chain[0], now)
    key = _read(tls.key, private=True)
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without its cause, which might quote the key.
        raise CertificateUnusable(
            f"{tls.key}: is not a private key in PEM without a password."
        ) from None
    if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CertificateUnusable(
            f"{tls.key}: is neither an EC nor an RSA key; gRPC takes no other."
        )
    if private.public_key() != chain[0].public_key():
        raise CertificateUnusable(
            f"{tls.key}: is not the key of the certificate in {path}; renew both together."
        )
    return AgentCertificate(_read(path), key)


def trust(tls: TlsSettings) -> Trust:
    """Return whose certificates identify callers, and the revocation lists."""
    authorities = _certificates(tls.client_ca)
    for authority in authorities:
        if not _is_authority(authority):
            raise CertificateUnusable(
                f"{tls.client_ca}: {authority.subject.rfc4514_string()} is not an authority's "
                "certificate: it needs CA:TRUE and the key usage keyCertSign."
            )
    if tls.crl is None:
        return Trust(_read(tls.client_ca), tuple(authorities), None)
    crls = tuple(_crls(tls.crl))
    for crl in crls:
        _next_update(tls.crl, crl)
    return Trust(_read(tls.client_ca), tuple(authorities), crls)


class Watched(Generic[T]):
    """The last good reading of some files. Thread-safe: gRPC asks from threads of its own."""

    def __init__(self, paths: tuple[Path, ...], read: Callable[[], T]) -> None:
        self._paths = paths
        self._read = read
        self._lock = Lock()
        self._seen = self._signature()
        self._value = read()
        #: Why the files as they are now are not used, in one sentence; "" if they are.
        self.problem = ""

    def current(self) -> T:
        """Return it, read again if a file changed since. Costs a stat(2) for each file."""
        with self._lock:
            found = self._signature()
            if found != self._seen:
                self._seen = found  # before reading: what changes meanwhile is seen next time
                self._renew()
            return self._value

    def _renew(self) -> None:
        names = [str(path) for path in self._paths]
        try:
            self._value = self._read()
        except KeycustodyError as error:
            self.problem = error.message
            _log.error("tls.unusable", code=error.code, reason=error.message, files=names)
        else:
            self.problem = ""
            _log.info("tls.renewed", files=names)

    def _signature(self) -> _Signature:
        return tuple(_identity(path) for path in self._paths)


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: Path, *, private: bool = False) -> bytes:
    try:
        # Not blocking: a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_BYTES:
                raise CertificateUnusable(f"{path}: is not a file that could hold this.")
            if private:
                _check_private(path, found)
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise CertificateUnusable(f"{path}: cannot be read: {error.strerror}.") from error


def _check_private(path: Path, found: os.stat_result) -> None:
    if found.st_mode & 0o077:
        raise InsecurePermissions(
            f"The private key {path} is open to other users; run: chmod 600 {path}"
        )
    if found.st_uid not in (os.geteuid(), 0):
        raise InsecurePermissions(
            f"The private key {path} belongs to another user; run: chown {os.geteuid()} {path}"
        )


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise CertificateUnusable(f"{path}: holds no certificates in PEM.") from error


def _crls(path: Path) -> Iterator[x509.CertificateRevocationList]:
    blocks = _CRL.findall(_read(path))
    if not blocks:
        raise CertificateUnusable(f"{path}: holds no revocation list in PEM.")
    for block in blocks:
        try:
            crl = x509.load_pem_x509_crl(block)
            extensions = list(crl.extensions)
        except ValueError as error:
            raise CertificateUnusable(f"{path}: holds a malformed revocation list.") from error
        if any(e.critical and e.oid not in _KNOWN_CRL_EXTENSIONS for e in extensions):
            raise CertificateUnusable(
                f"{path}: holds a delta, indirect or partial revocation list; give complete ones."
            )
        yield crl


def _next_update(path: Path, crl: x509.CertificateRevocationList) -> datetime:
    if crl.next_update_utc is None:
        raise CertificateUnusable(f"{path}: holds a revocation list that does not say nextUpdate.")
    return crl.next_update_utc


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        extensions = certificate.extensions
        return (
            extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            and extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
        )
    except (ValueError, x509.ExtensionNotFound):
        return False


def _check_agents(path: Path, certificate: x509.Certificate, now: datetime) -> None:
    """Refuse what every client would refuse."""
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise CertificateUnusable(
            f"{path}: the agent's certificate holds from {certificate.not_valid_before_utc} to "
            f"{certificate.not_valid_after_utc}, which is not now; renew it."
        )
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.SERVER_AUTH not in usage:
            raise CertificateUnusable(
                f"{path}: the agent's certificate is not for servers (extended key usage)."
            )
    except x509.ExtensionNotFound:
        pass  # for any use
    except ValueError as error:
        raise CertificateUnusable(f"{path}: the agent's certificate is malformed.") from error
    names = _alternative_names(certificate)
    if not any(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
        raise CertificateUnusable(
            f"{path}: the agent's certificate has no DNS name or IP address as subject alternative "
            "name, so clients would refuse it."
        )


def _alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound):
        return []
    return list(extension.value)
