"""Somebody else's program on the same machine: `python intruder.py ACTION MODULE LABEL PIN ARG...`.

It uses python-pkcs11 directly, with a PIN or without ("-"), and does what an intruder would.
"""

import sys
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass

from keycustody.token import profiles
from keycustody.token.attributes import objects_of
from keycustody.token.hsm.objects import MAPPER, public_key
from keycustody.token.hsm.public_keys import EC_PARAMS

SOFTHSM = profiles.load("softhsm2")


def _public(label: str, id_: bytes, *, private: bool) -> dict[Attribute, Any]:
    point = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )
    return {
        Attribute.CLASS: ObjectClass.PUBLIC_KEY,
        Attribute.KEY_TYPE: KeyType.EC,
        Attribute.EC_PARAMS: EC_PARAMS["EC_P256"],
        Attribute.EC_POINT: b"\x04\x41" + point,
        Attribute.LABEL: label,
        Attribute.ID: id_,
        Attribute.TOKEN: True,
        Attribute.PRIVATE: private,
        Attribute.VERIFY: True,
    }


def plant_public(session: Any, label: str, id_: bytes) -> None:
    """Without a PIN: public objects under a key's label and ID, of each kind that is possible."""
    session.create_object(_public(label, id_, private=False))
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.VALUE: bytes(32),
            Attribute.LABEL: label,
            Attribute.ID: id_,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: False,
            Attribute.SENSITIVE: False,
        }
    )
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.DATA,
            Attribute.LABEL: label,
            Attribute.APPLICATION: "keycustody.state.v1",
            Attribute.VALUE: b"planted",
            Attribute.TOKEN: True,
            Attribute.PRIVATE: False,
        }
    )


def plant_strange(session: Any, label: str, id_: bytes) -> None:
    """With a PIN: a private data object that is not ours and whose label is not text."""
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.DATA,
            Attribute.LABEL: label + "\udcff",
            Attribute.APPLICATION: "strange \udcfe",
            Attribute.VALUE: bytes(100_000),
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
        }
    )


def second_public(session: Any, label: str, id_: bytes) -> None:
    """With a PIN: one more private public key."""
    session.create_object(_public(label, id_, private=True))


def import_secret(session: Any, label: str, id_: bytes) -> None:
    """With a PIN: a known AES key and a known HMAC key under a `wrap` key's label."""
    for kind, uses in (
        (KeyType.AES, (Attribute.WRAP, Attribute.UNWRAP)),
        (KeyType.GENERIC_SECRET, (Attribute.SIGN, Attribute.VERIFY)),
    ):
        used = dict.fromkeys(uses, True)
        session.create_object(
            {
                Attribute.CLASS: ObjectClass.SECRET_KEY,
                Attribute.KEY_TYPE: kind,
                Attribute.VALUE: bytes(32),
                Attribute.LABEL: label,
                Attribute.ID: id_,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: True,
                Attribute.SENSITIVE: True,
                Attribute.EXTRACTABLE: False,
                **{
                    use: use in used
                    for use in (
                        Attribute.ENCRYPT,
                        Attribute.DECRYPT,
                        Attribute.SIGN,
                        Attribute.VERIFY,
                        Attribute.WRAP,
                        Attribute.UNWRAP,
                        Attribute.DERIVE,
                    )
                },
                Attribute.MODIFIABLE: False,
                Attribute.COPYABLE: False,
                Attribute.ALLOWED_MECHANISMS: [0x2109 if kind is KeyType.AES else 0x251],
            }
        )


def generate(session: Any, label: str, id_: bytes, *weakened: str) -> None:
    """With a PIN: a key pair of our own making with an attribute that is not as it should be."""
    changes = dict(one.split("=") for one in weakened)
    private: dict[Attribute, Any] = {
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.MODIFIABLE: False,
        Attribute.COPYABLE: False,
        Attribute.SIGN: True,
        Attribute.DECRYPT: False,
        Attribute.UNWRAP: False,
        Attribute.DERIVE: False,
        Attribute.ALLOWED_MECHANISMS: [0x1041],
    }
    public: dict[Attribute, Any] = {
        Attribute.PRIVATE: True,
        Attribute.MODIFIABLE: False,
        Attribute.COPYABLE: False,
        Attribute.VERIFY: True,
        Attribute.ENCRYPT: False,
        Attribute.WRAP: False,
    }
    for name, value in changes.items():
        kind, _, attribute = name.partition(".")
        template = private if kind == "private" else public
        if value == "absent":
            template.pop(Attribute[attribute])
        elif attribute == "ALLOWED_MECHANISMS":
            template[Attribute[attribute]] = [int(value, 16), 0x1041]
        else:
            template[Attribute[attribute]] = value == "True"
    made, _ = session.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: EC_PARAMS["EC_P256"]}, local=True
    ).generate_keypair(
        id=id_,
        label=label,
        store=True,
        capabilities=MechanismFlag(0),
        public_template=public,
        private_template=private,
    )
    point = bytes(made[Attribute.EC_POINT])[2:]
    public_key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    print(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex())


def _as_ours(session: Any, label: str, id_: bytes, purpose: str) -> tuple[Any, Any]:
    wanted = objects_of(purpose, "RSA_2048" if purpose == "decrypt" else "EC_P256", SOFTHSM)
    names = {Attribute.LABEL: label, Attribute.ID: id_}
    private, public = (
        {Attribute[name]: value for name, value in one.set.items()} | names for one in wanted
    )
    given = {"store": True, "capabilities": 0, "public_template": public}
    given["private_template"] = private
    if purpose == "decrypt":
        made = session.generate_keypair(KeyType.RSA, 2048, **given)
    else:
        params = session.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: EC_PARAMS["EC_P256"]}, local=True
        )
        made = params.generate_keypair(**given)
    return made[0], made[1]


def make_pair(session: Any, label: str, id_: bytes, purpose: str) -> None:
    """With a PIN: a pair made exactly as ours."""
    print(public_key(_as_ours(session, label, id_, purpose)[0]).hex())


def mix_pairs(session: Any, label: str, id_: bytes, purpose: str) -> None:
    """With a PIN: two pairs made exactly as ours, of which one half each is left."""
    pairs = [_as_ours(session, label, id_, purpose) for _ in range(2)]
    pairs[0][0].destroy()
    pairs[1][1].destroy()
    print(public_key(pairs[1][0]).hex())


def swap_public(session: Any, label: str, id_: bytes) -> None:
    """With a PIN: destroy a public key and put another in its place."""
    for found in list(
        session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: id_})
    ):
        found.destroy()
    second_public(session, label, id_)


def destroy(session: Any, label: str, id_: bytes) -> None:
    """With a PIN: destroy all objects with that ID."""
    for found in list(session.get_objects({Attribute.ID: id_})):
        found.destroy()


def see_nothing(session: Any, label: str, id_: bytes) -> None:
    """Without a PIN: private objects are not there."""
    assert not list(session.get_objects({Attribute.LABEL: label}))


def fail_to_change(session: Any, label: str, id_: bytes) -> None:
    """With a PIN: one object can be neither destroyed nor changed."""
    (found,) = list(session.get_objects({Attribute.LABEL: label}))
    for attempt in (
        found.destroy,
        lambda: found.__setitem__(Attribute.LABEL, "x"),
        lambda: found.__setitem__(Attribute.VALUE, b"x"),
    ):
        try:
            attempt()
        except pkcs11.PKCS11Error:
            continue
        raise SystemExit("it was changed")


def change_pin(session: Any, label: str, id_: bytes, old: str, new: str) -> None:
    """With a PIN: set another."""
    session.set_pin(old, new)


def main() -> None:
    """Do it."""
    action, module, token_label, pin, label, id_, *rest = sys.argv[1:]
    # Text that is not UTF-8 is this program's business, as an intruder's would be.
    MAPPER.register_handler(
        Attribute.LABEL, lambda text: text.encode(errors="surrogateescape"), bytes.decode
    )
    MAPPER.register_handler(
        Attribute.APPLICATION, lambda text: text.encode(errors="surrogateescape"), bytes.decode
    )
    token = pkcs11.lib(module).get_token(token_label=token_label)
    user_pin = None if pin == "-" else pin
    with token.open(rw=True, user_pin=user_pin, attribute_mapper=MAPPER) as session:
        globals()[action](session, label, bytes.fromhex(id_), *rest)


if __name__ == "__main__":
    main()
