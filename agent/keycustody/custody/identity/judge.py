"""Who shows this certificate, now: from what TLS saw to a principal.

`Judge` asks three things at each call, and remembers the answer until the first of them can
change: was it TLS 1.3, does the certificate hold (`custody.identity.trust`), and whose is it. A
principal is found by its identities alone, which the settings map to it (`config.identities`),
read from the certificate's subject alternative names by their types. One that maps to no principal,
or to two, is nobody. No I/O: the time, the authorities and the mapping in force are given each
time.
"""

import hashlib
from collections import abc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keycustody.config import PrincipalSettings, Settings, identities
from keycustody.custody.identity.trust import Trust
from keycustody.errors import Unauthenticated

_DER = Encoding.DER
TLS_1_3 = "TLSv1.3"
#: Answers remembered. Each is a few KiB; callers with certificates are few.
_REMEMBERED = 1024
#: How long a refusal is remembered: what is not valid yet, or not revoked any more, becomes so.
_REFUSED = timedelta(seconds=1)
#: Longer than any chain of ours; what is longer is refused before it costs anything.
_MAX_PEM_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Shown:
    """What a TLS connection tells of its other end: version, certificate, what came with it."""

    version: str
    certificate: bytes
    chain: bytes


@dataclass(frozen=True, slots=True)
class Known:
    """Who is calling and how that is known, or, with `refusal`, why it is nobody."""

    principal: str
    via: str
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    known: Known
    since: datetime
    until: datetime


class Directory:
    """Which principal an identity is: one snapshot."""

    def __init__(self, principals: abc.Mapping[str, PrincipalSettings]) -> None:
        self._principal_of = {
            identity: name
            for name, principal in principals.items()
            for identity in principal.identities
        }

    def find(self, certificate: x509.Certificate) -> tuple[str, str]:
        """Return the principal, and which of its identities said so. Raises `Unauthenticated`."""
        found = {
            identity: self._principal_of[identity]
            for identity in identities_of(certificate)
            if identity in self._principal_of
        }
        if len(set(found.values())) > 1:
            raise Unauthenticated("The certificate has names of more than one principal.")
        for identity, principal in found.items():
            return principal, identity
        raise Unauthenticated(
            "No subject alternative name of the certificate is that of a principal; have the "
            "agent's operator map it (docs/identity.md)."
        )


class Mapping:
    """The directory in force, which follows the settings: also for connections that live."""

    def __init__(self, principals: abc.Mapping[str, PrincipalSettings]) -> None:
        self._directory = Directory(principals)

    def current(self) -> Directory:
        """Return it."""
        return self._directory

    @asynccontextmanager
    async def prepared(self, new: Settings) -> AsyncIterator[Callable[[], None]]:
        """Make the next one ready; calling what is given puts it in force."""
        directory = Directory(new.principals)

        def commit() -> None:
            self._directory = directory

        yield commit


class Judge:
    """Judges what is shown, at each call. Not thread-safe: the agent's loop asks."""

    def __init__(self) -> None:
        self._answers: dict[Shown, _Answer] = {}
        self._for: tuple[Trust, Directory] | None = None

    def judge(self, shown: Shown, trust: Trust, directory: Directory, now: datetime) -> Known:
        """Return who it is by what holds now."""
        if self._for is None or self._for[0] is not trust or self._for[1] is not directory:
            self._for = trust, directory
            self._answers.clear()
        answer = self._answers.get(shown)
        # A clock that was set back asks again, too.
        if answer is None or not answer.since <= now < answer.until:
            answer = _answer(shown, trust, directory, now)
            if len(self._answers) >= _REMEMBERED:
                self._answers.pop(next(iter(self._answers)))
            self._answers[shown] = answer
        return answer.known


def identities_of(certificate: x509.Certificate) -> list[str]:
    """Return the certificate's identities, canonical. Raises `Unauthenticated` if it is no valid
    X.509-SVID and has a SPIFFE ID (X509-SVID, 2: exactly one URI).

    Names that no settings could hold, wildcards among them, are nobody's and are left out.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise Unauthenticated("The certificate has no subject alternative names.") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) > 1 and any(uri.lower().startswith("spiffe:") for uri in uris):
        raise Unauthenticated("The certificate has a SPIFFE ID and another URI; it may have one.")
    return [identity for name in names for identity in _identity(name)]


def _identity(name: x509.GeneralName) -> Iterator[str]:
    try:
        match name:
            case x509.UniformResourceIdentifier():
                spiffe = name.value.lower().startswith("spiffe:")
                yield identities.canonical(name.value if spiffe else f"uri:{name.value}")
            case x509.DNSName():
                yield identities.canonical(f"dns:{name.value}")
            case x509.RFC822Name():
                yield identities.canonical(f"email:{name.value}")
            case x509.IPAddress():
                yield identities.canonical(f"ip:{name.value}")
    except ValueError:
        return


def _answer(shown: Shown, trust: Trust, directory: Directory, now: datetime) -> _Answer:
    fingerprint = "none"
    try:
        if shown.version != TLS_1_3:
            raise Unauthenticated(f"The agent speaks TLS 1.3 alone, and this is {shown.version}.")
        leaf, intermediates = _parsed(shown)
        fingerprint = hashlib.sha256(leaf.public_bytes(_DER)).hexdigest()
        until = trust.verify(leaf, intermediates, now)
        principal, identity = directory.find(leaf)
    except Unauthenticated as error:
        # By its fingerprint: its names are whatever its owner wants the record to say.
        refused = Known("", f"tls:sha256:{fingerprint}", error.message)
        return _Answer(refused, now, now + _REFUSED)
    return _Answer(Known(principal, f"tls:{identity}"), now, until)


def _parsed(shown: Shown) -> tuple[x509.Certificate, list[x509.Certificate]]:
    if len(shown.certificate) + len(shown.chain) > _MAX_PEM_BYTES:
        raise Unauthenticated("The certificate and its chain are too long.")
    try:
        leaf = x509.load_pem_x509_certificate(shown.certificate)
        chain = x509.load_pem_x509_certificates(shown.chain) if shown.chain else []
        for certificate in (leaf, *chain):
            list(certificate.extensions)
    except ValueError as error:
        raise Unauthenticated("No certificate was shown, or one that is malformed.") from error
    return leaf, chain
