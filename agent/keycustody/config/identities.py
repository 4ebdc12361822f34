"""Identities: how settings name whose certificate a principal has, and what is equal to what.

`TYPE:VALUE`, or a SPIFFE ID as it is. Each type is one kind of subject alternative name and is
compared with that kind alone, whole, after both sides took the one form that `canonical` gives:

| identity | alternative name | equal |
| --- | --- | --- |
| `spiffe://domain/path` | URI, the certificate's only one | byte for byte |
| `uri:...` | URI that is no SPIFFE ID | byte for byte |
| `dns:name` | DNS name | ASCII case ignored; no wildcard, on either side |
| `email:local@domain` | RFC 822 name | case ignored in the domain alone |
| `ip:address` | IP address | the address, however it is written |

A SPIFFE ID is one of the SPIFFE standard (SPIFFE-ID, 2): its trust domain in lower case, a path
with no empty, `.` or `..` segment, at most 2048 bytes. Names in other scripts are A-labels
(`xn--`). A subject's common name is no identity.
"""

import ipaddress
import re

_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+")
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_DNS = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_EMAIL_LOCAL = re.compile(r"[!#-'*+\-/-9=?A-Z^-~]+(\.[!#-'*+\-/-9=?A-Z^-~]+)*")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_MAX_BYTES = 2048
_MAX_DNS = 253


def canonical(identity: str) -> str:
    """Return the one form of an identity. Raises `ValueError`, with what it should have been."""
    if len(identity) > _MAX_BYTES:
        raise ValueError(f"an identity has at most {_MAX_BYTES} characters")
    kind, colon, value = identity.partition(":")
    match kind if colon else "":
        case "spiffe":
            return spiffe(identity)
        case "dns":
            return f"dns:{dns(value)}"
        case "email":
            return f"email:{email(value)}"
        case "ip":
            return f"ip:{ipaddress.ip_address(value)}"
        case "uri":
            return f"uri:{uri(value)}"
    raise ValueError("an identity is spiffe://DOMAIN/PATH, dns:, email:, ip: or uri:")


def spiffe(value: str) -> str:
    """Return a SPIFFE ID. Raises `ValueError`."""
    segments = value.split("/")[3:]
    if not _SPIFFE.fullmatch(value) or {".", ".."} & set(segments) or len(value) > _MAX_BYTES:
        raise ValueError("a SPIFFE ID is spiffe://, a trust domain in lower case, and a path")
    return value


def dns(value: str) -> str:
    """Return a DNS name in lower case. Raises `ValueError`."""
    name = value.lower()
    if not value.isascii() or len(name) > _MAX_DNS or not _DNS.fullmatch(name):
        raise ValueError("a DNS name is letters, digits, hyphens and dots, without a wildcard")
    return name


def email(value: str) -> str:
    """Return a mail address with its domain in lower case. Raises `ValueError`."""
    local, _, domain = value.rpartition("@")
    if not _EMAIL_LOCAL.fullmatch(local):
        raise ValueError("a mail address is local@domain, in ASCII and without quotes")
    return f"{local}@{dns(domain)}"


def uri(value: str) -> str:
    """Return a URI that is no SPIFFE ID. Raises `ValueError`."""
    if not _URI.fullmatch(value) or len(value) > _MAX_BYTES:
        raise ValueError("a URI has a scheme, and is in ASCII without spaces")
    if value.lower().startswith("spiffe:"):
        raise ValueError("a SPIFFE ID is written as it is, without uri:")
    return value
