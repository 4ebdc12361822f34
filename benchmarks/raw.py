"""The token alone: what each operation costs in Python without any agent.

Run by `benchmarks.children.asked` with the module, the token's label and the PIN file. A question
names an operation and for how many seconds it is done; the answer has calls a second and their
median in seconds. Signatures and agreement are python-pkcs11's own calls on a key that was found
before; a session is opened with the same session objects as in the agent (`Transient`), and none of
its checks. A module that refuses an operation is asked no more: the answer has its error.
"""

import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import KeyType, Mechanism
from pkcs11.util.ec import encode_named_curve_parameters

from benchmarks.children import serve
from keycustody.token import profiles
from keycustody.token.api import Open
from keycustody.token.hsm.module import find_token, load
from keycustody.token.hsm.transient import Transient

_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")  # RFC 8017, 9.2 note 1


def operations(session: pkcs11.Session, profile: profiles.Profile) -> dict[str, Callable[[], Any]]:
    """Every operation that is measured."""
    digest = os.urandom(32)
    point = _point()

    def key(label: str, kind: ObjectClass = ObjectClass.PRIVATE_KEY) -> Any:
        search = {Attribute.LABEL: label, Attribute.CLASS: kind}
        return min(session.get_objects(search), key=lambda found: found.key_type.name)

    release, tokens, hpke = key("release.v1"), key("tokens.v1"), key("hpke.v1")
    rsa2048, rsa3072 = key("rsa2048.v1"), key("archive.v1")
    aes, mac = _set(session, "invoices.v1")
    delivery = key("keycustody:delivery.v1")

    def agree() -> None:
        with Transient(session, profile) as transient:
            transient.shared_secret(hpke, point, 32)

    def sealed(transient: Transient, session_key: Any) -> None:
        transport = transient.transport_key(transient.agreement(delivery, point), digest)
        transient.wrap(transport, session_key)

    def generate() -> bytes:
        with Transient(session, profile) as transient:
            session_key = transient.session_key(sensitive=True)
            wrapped = transient.wrap(aes, session_key)
            mac.sign(bytes(100) + wrapped, mechanism=Mechanism.SHA256_HMAC)
            sealed(transient, session_key)
            return wrapped

    stored = cache(generate)

    def unwrap() -> None:
        with Transient(session, profile) as transient:
            mac.sign(bytes(100) + stored(), mechanism=Mechanism.SHA256_HMAC)
            sealed(transient, transient.unwrap(aes, stored(), sensitive=True))

    rsa = _DIGEST_INFO + digest
    return {
        "P-256": lambda: release.sign(digest, mechanism=Mechanism.ECDSA),
        "Ed25519": lambda: tokens.sign(digest, mechanism=Mechanism.EDDSA),
        "RSA-2048": lambda: rsa2048.sign(rsa, mechanism=Mechanism.RSA_PKCS),
        "RSA-3072": lambda: rsa3072.sign(rsa, mechanism=Mechanism.RSA_PKCS),
        "ECDH": agree,
        "session open": generate,
        "unwrap": unwrap,
    }


def _set(session: pkcs11.Session, label: str) -> tuple[Any, Any]:
    found: list[Any] = list(
        session.get_objects({Attribute.LABEL: label, Attribute.CLASS: ObjectClass.SECRET_KEY})
    )
    (aes,) = (one for one in found if one.key_type.name == "AES")
    (mac,) = (one for one in found if one.key_type.name != "AES")
    return aes, mac


def _point() -> bytes:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _make(session: pkcs11.Session, count: int) -> int:
    """Key pairs that nobody declared."""
    curve = session.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
    )
    for number in range(count):
        curve.generate_keypair(store=True, label=f"somebody-else-{number}")
    return count


def main(module: str, label: str, pin_file: str) -> None:
    """Answer questions until there are no more."""
    # Not by python-pkcs11's own search: a token that others open, too, may be missed once.
    token = find_token(load(module), Open(module, "softhsm2", label))
    session = token.open(rw=True, user_pin=Path(pin_file).read_text().strip())
    known = operations(session, profiles.load("softhsm2"))

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if "make" in question:
            return {"made": _make(session, question["make"])}
        work, seconds = known[question["operation"]], question["seconds"]
        try:
            work()
        except PKCS11Error as error:
            return {"refused": type(error).__name__}
        taken = []
        started = before = time.perf_counter()
        while before < started + seconds:
            work()
            after = time.perf_counter()
            taken.append(after - before)
            before = after
        taken.sort()
        return {"rate": len(taken) / (before - started), "p50": taken[len(taken) // 2]}

    serve(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
