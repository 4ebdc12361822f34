"""An authority for tests, which issues also what no good one would."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
DAY = timedelta(days=1)


def uri(value: str) -> x509.GeneralName:
    """A URI as alternative name."""
    return x509.UniformResourceIdentifier(value)


@dataclass(frozen=True)
class Issued:
    """A certificate, its key, and what is between it and its authority, in this order."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        """The certificate and what is above it."""
        chain = (self.certificate, *self.above)
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)

    @property
    def key_pem(self) -> bytes:
        """The key."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Put both into a folder, each by a rename, and return the paths."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        replace(key, self.key_pem)
        replace(certificate, self.pem)
        return certificate, key


class Authority:
    """Issues certificates and revocation lists."""

    def __init__(self, name: str = "Test authority", above: "Authority | None" = None) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self._above = above
        issuer = self if above is None else above
        now = datetime.now(UTC)
        self.certificate = (
            _builder(self.name, issuer.name, self.key, now - DAY, now + 365 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
            )
            .add_extension(issuer.identifier, critical=False)
            .sign(issuer.key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def identifier(self) -> x509.AuthorityKeyIdentifier:
        """What certificates name it by."""
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())

    def issue(
        self,
        *names: x509.GeneralName,
        usage: Sequence[x509.ObjectIdentifier] = CLIENT,
        start: timedelta = -DAY,
        end: timedelta = 30 * DAY,
        common_name: str = "somebody",
        authority: bool = False,
    ) -> Issued:
        """A certificate with these alternative names; no extension for what is empty."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        now = datetime.now(UTC)
        builder = (
            _builder(subject, self.name, key, now + start, now + end)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(_usage(authority=authority), critical=True)
            .add_extension(self.identifier, critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        above = () if self._above is None else (self.certificate,)
        return Issued(builder.sign(self.key, hashes.SHA256()), key, above)

    def server(self, *, end: timedelta = 30 * DAY) -> Issued:
        """A certificate of an agent on this machine."""
        return self.issue(x509.DNSName("localhost"), usage=SERVER, end=end)

    def crl(
        self,
        *revoked: Issued | x509.Certificate,
        end: timedelta = DAY,
        signed_by: "Authority | None" = None,
    ) -> bytes:
        """A revocation list, PEM."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(now - 2 * DAY)
            .next_update(now + end)
        )
        for one in revoked:
            certificate = one.certificate if isinstance(one, Issued) else one
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(now - DAY)
                .build()
            )
        signer = self if signed_by is None else signed_by
        return builder.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def replace(path: Path, content: bytes) -> None:
    """Put a file in another's place, as tools that renew certificates do."""
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.rename(path)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
