"""Certificate signing requests (PKCS#10, RFC 2986) over a key that stays in the token."""

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from keycustody.algorithms import Scheme, signature
from keycustody.errors import InvalidRequest

_HASHES: dict[str | None, hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None] = {
    None: None,
    "SHA_256": hashes.SHA256(),
    "SHA_384": hashes.SHA384(),
    "SHA_512": hashes.SHA512(),
}


def default(algorithms: Sequence[str]) -> str:
    """The key's first PKCS #1 v1.5 algorithm, which every CA takes; else its first."""
    pkcs1 = (name for name in algorithms if signature(name).scheme is Scheme.RSA_PKCS1)
    return next(pkcs1, algorithms[0])


def build(
    key: CertificateIssuerPrivateKeyTypes, algorithm: str, subject: str, dns: Sequence[str]
) -> bytes:
    """A signed request in PEM. Raises `InvalidRequest` for a subject or name that is not valid."""
    try:
        builder = x509.CertificateSigningRequestBuilder(x509.Name.from_rfc4514_string(subject))
        if dns:
            names = x509.SubjectAlternativeName([x509.DNSName(name) for name in dns])
            builder = builder.add_extension(names, critical=False)
    except ValueError as error:
        raise InvalidRequest(
            "The subject is an RFC 4514 name such as CN=a.example,O=Org, and DNS names are ASCII."
        ) from error
    chosen = signature(algorithm)
    hashed = _HASHES[chosen.hash]
    pad: padding.PSS | padding.PKCS1v15 | None = None
    if chosen.scheme is Scheme.RSA_PSS and hashed is not None:
        pad = padding.PSS(padding.MGF1(hashed), padding.PSS.DIGEST_LENGTH)
    elif chosen.scheme is Scheme.RSA_PKCS1:
        pad = padding.PKCS1v15()
    return builder.sign(key, hashed, rsa_padding=pad).public_bytes(Encoding.PEM)
