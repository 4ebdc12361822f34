"""`python watch_session_objects.py MODULE LABEL PIN`: what the session objects of each flow are.

Runs in a process of its own, as a worker would, and prints JSON: for each flow, the attributes of
every object that was made for it, read in the token while it lived.
"""

import hashlib
import json
import secrets
import sys
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute

from keycustody.formats.delivery import public_point
from keycustody.token.api import (
    CreateVersion,
    GenerateSessionKey,
    KeyRef,
    Login,
    Open,
    Recipient,
    Secret,
    UnwrapSessionKeys,
)
from keycustody.token.hsm import Hsm
from keycustody.token.hsm.transient import Transient

_WATCHED = ("TOKEN", "PRIVATE", "SENSITIVE", "EXTRACTABLE", "WRAP", "DERIVE", "DECRYPT", "SIGN")
seen: list[dict[str, bool]] = []
_keep = Transient._keep


def _watching(self: Transient, made: Any) -> Any:
    seen.append({name: bool(made[Attribute[name]]) for name in _WATCHED})
    return _keep(self, made)


def _make(hsm: Hsm, label: str, purpose: str, algorithm: str) -> KeyRef:
    id_ = secrets.token_bytes(16)
    made: Any = hsm.perform(CreateVersion(label, id_, purpose, algorithm))
    pinned = hashlib.sha256(made.public_key).digest() if made.public_key else b""
    return KeyRef(label, id_, purpose, algorithm, pinned)


def main() -> None:
    """Do each flow, and print what was seen."""
    module, label, pin = sys.argv[1:]
    hsm = Hsm()
    hsm.open(Open(module, "softhsm2", label))
    hsm.login(Login(Secret(pin.encode())))
    wrap = _make(hsm, "watched.v1", "wrap", "AES_256_HMAC_SHA_256")
    delivery = _make(hsm, "watched-delivery.v1", "agree", "EC_P256")
    point = public_point(ec.generate_private_key(ec.SECP256R1()))
    flows: dict[str, list[dict[str, bool]]] = {}
    for how, holder in (("sealed", delivery), ("plain", None)):
        to = Recipient(point, holder)
        generate = GenerateSessionKey(wrap, "watched", 1, 1, bytes(32), to)
        made: Any = hsm.perform(generate)  # loads the keys, whose proofs are not watched
        unwrap = UnwrapSessionKeys(wrap, "watched", 1, 1, bytes(32), [made.wrapped], to)
        Transient._keep = _watching  # type: ignore[method-assign]
        for what, request in (("generate", generate), ("unwrap", unwrap)):
            seen.clear()
            hsm.perform(request)
            flows[f"{what} {how}"] = list(seen)
        Transient._keep = _keep  # type: ignore[method-assign]
    print(json.dumps(flows))


if __name__ == "__main__":
    main()
