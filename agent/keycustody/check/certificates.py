"""Certificates and revocation lists of `[tls]`, where they exist here: readable, and how long."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from keycustody.check.subject import Subject
from keycustody.config.findings import Finding

_CRL = re.compile(b"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)

#: What it is for people, and when it begins and ends.
_Term = tuple[str, datetime, datetime | None]


def check(subject: Subject) -> Iterator[Finding]:
    """Yield what cannot be used, is not valid now, or ends soon."""
    tls = subject.settings.tls
    if tls is None:
        return
    for member, path in (
        ("certificate", tls.certificate),
        ("client_ca", tls.client_ca),
        ("crl", tls.crl),
    ):
        if path is None or not path.exists():
            continue
        try:
            terms = list(_revocation_lists(path) if member == "crl" else _certificates(path))
        except (OSError, ValueError) as error:
            kind = "list" if member == "crl" else "certificate"
            reason = f"{path} holds no {kind} in PEM that can be read ({type(error).__name__})."
            yield subject.finding(f"tls.{member}", "certificate-unusable", reason)
            continue
        for term in terms:
            yield from _judge(subject, f"tls.{member}", term)


def _certificates(path: Path) -> Iterator[_Term]:
    for one in x509.load_pem_x509_certificates(path.read_bytes()):
        name = one.subject.rfc4514_string() or f"serial {one.serial_number:x}"
        yield name, one.not_valid_before_utc, one.not_valid_after_utc


def _revocation_lists(path: Path) -> Iterator[_Term]:
    blocks = _CRL.findall(path.read_bytes())
    if not blocks:
        raise ValueError("no revocation list")
    for block in blocks:
        one = x509.load_pem_x509_crl(block)
        name = f"the list of {one.issuer.rfc4514_string()}"
        yield name, one.last_update_utc, one.next_update_utc


def _ahead(subject: Subject, lifetime: timedelta) -> timedelta:
    """How long before its end it is worth a word: what lives for days only is renewed in time, and
    would otherwise be warned of from its first day."""
    return min(timedelta(days=subject.warn_days), lifetime / 3)


def _judge(subject: Subject, path: str, term: _Term) -> Iterator[Finding]:
    name, begin, end = term
    if begin > subject.now:
        reason = f"{name} is not valid before {begin.isoformat()}."
        yield subject.finding(path, "certificate-expired", reason)
    elif end is not None and end <= subject.now:
        reason = f"{name} ended at {end.isoformat()}; renew it."
        yield subject.finding(path, "certificate-expired", reason)
    elif end is not None and end - subject.now <= _ahead(subject, end - begin):
        reason = f"{name} ends at {end.isoformat()}; renew it."
        yield subject.finding(path, "certificate-expiring", reason)
