"""Whose certificates identify callers: authorities and revocation lists, and the judgement by them.

A certificate holds now if its chain leads to one of the authorities, all of it is within its
dates, it is for clients (extended key usage clientAuth, said and not just not denied) and no
authority itself, and, where revocation lists are kept, each certificate of the chain has a current
list of its issuer that does not name it. A list that is missing, ended, or not signed by the issuer
lets nobody in. Every authority may vouch for every identity. No I/O: certificates and the time are
given. OCSP is not asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from keycustody.errors import Unauthenticated

Crl = x509.CertificateRevocationList


@dataclass(frozen=True, slots=True, eq=False)
class Trust:
    """One reading of the authorities' file and of the revocation lists' (None: none are kept)."""

    pem: bytes
    authorities: tuple[x509.Certificate, ...]
    crls: tuple[Crl, ...] | None
    _signed: dict[tuple[int, bytes], bool] = field(default_factory=dict, repr=False)

    def verify(
        self, leaf: x509.Certificate, intermediates: Sequence[x509.Certificate], now: datetime
    ) -> datetime:
        """Return until when the answer holds. Raises `Unauthenticated`, which says why not."""
        if now < leaf.not_valid_before_utc:
            raise Unauthenticated("The certificate is not valid yet; check the clocks.")
        if now > leaf.not_valid_after_utc:
            raise Unauthenticated("The certificate has expired; renew it.")
        builder = (
            PolicyBuilder().store(Store(list(self.authorities))).time(now.replace(tzinfo=None))
        )
        verifier = builder.extension_policies(
            ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=_CALLERS
        ).build_client_verifier()
        try:
            chain = verifier.verify(leaf, list(intermediates)).chain
        except VerificationError as error:
            raise Unauthenticated(
                "The certificate is not one for clients (extended key usage clientAuth) by an "
                "authority that the agent knows now."
            ) from error
        until = [certificate.not_valid_after_utc for certificate in chain]
        if self.crls is not None:
            until += [self._not_revoked(one, issuer, now) for one, issuer in pairwise(chain)]
        return min(until)

    def _not_revoked(
        self, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime
    ) -> datetime:
        """Return until when the issuer's revocation list holds."""
        crl = self._newest(issuer, now)
        if crl is None or crl.next_update_utc is None or crl.next_update_utc < now:
            raise Unauthenticated(
                "The agent has no current revocation list of the authority "
                f"{issuer.subject.rfc4514_string()!r}; its operator has to renew it."
            )
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise Unauthenticated("The certificate, or an authority's above it, was revoked.")
        return crl.next_update_utc

    def _newest(self, issuer: x509.Certificate, now: datetime) -> Crl | None:
        signed = [
            crl
            for number, crl in enumerate(self.crls or ())
            if crl.issuer == issuer.subject
            and crl.last_update_utc <= now
            and self._is_signed(number, crl, issuer)
        ]
        return max(signed, key=lambda crl: crl.last_update_utc, default=None)

    def _is_signed(self, number: int, crl: Crl, issuer: x509.Certificate) -> bool:
        """Did the issuer sign it? Remembered, since a list can be megabytes long; the memory is
        bounded by the authorities that chains were verified with."""
        known = number, issuer.fingerprint(hashes.SHA256())
        if known not in self._signed:
            self._signed[known] = _may_sign_lists(issuer) and _verifies(crl, issuer)
        return self._signed[known]


def _verifies(crl: Crl, issuer: x509.Certificate) -> bool:
    try:
        # Raises TypeError for keys that no list is signed with.
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _may_sign_lists(issuer: x509.Certificate) -> bool:
    return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign


def _for_clients(
    _policy: Policy, _certificate: x509.Certificate, usage: x509.ExtendedKeyUsage
) -> None:
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise ValueError("not for clients")


def _signs(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and (not usage.digital_signature or usage.key_cert_sign):
        raise ValueError("not for signing in TLS, or for signing certificates")


def _is_no_authority(
    _policy: Policy, _certificate: x509.Certificate, constraints: x509.BasicConstraints | None
) -> None:
    if constraints is not None and constraints.ca:
        raise ValueError("an authority's")


#: As strict as the web's rules where it matters, without those that are about the web's names.
_CALLERS = (
    ExtensionPolicy.permit_all()
    .require_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _for_clients)
    .require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs)
    .may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_no_authority)
    .require_not_present(x509.NameConstraints)
)
