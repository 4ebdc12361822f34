"""PKCS#11 attributes to plain values and back.

Rules: every value is packed once before python-pkcs11 sees it, because a value of a wrong type
crashes the process there; and nothing that a stranger put on the token (a vendor's own object
class, a label that is not UTF-8) stops us from reading the rest.
"""

from collections.abc import Callable, Mapping
from enum import IntEnum
from struct import Struct
from typing import Any, TypeVar

import pkcs11
from pkcs11.attributes import AttributeMapper
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import KeyType

from keycustody.algorithms import KeyAlgorithm
from keycustody.errors import InternalError
from keycustody.token.api import AttributeValue, FoundObject
from keycustody.token.attributes import SENTINEL_APPLICATION, STATE_APPLICATION
from keycustody.token.hsm.failures import STALE_HANDLE
from keycustody.token.hsm.public_keys import spki
from keycustody.token.profiles import Profile

Template = dict[Attribute, Any]
Result = TypeVar("Result")

_ULONG = Struct("L")
_KINDS: dict[Any, str] = {
    ObjectClass.PRIVATE_KEY: "private",
    ObjectClass.PUBLIC_KEY: "public",
    ObjectClass.SECRET_KEY: "secret",
    ObjectClass.DATA: "data",
}
KEY_KINDS = ("private", "public", "secret")

#: All that `keycustody.token.attributes` may ask of a key.
_KEY_ATTRIBUTES = (
    "TOKEN",
    "PRIVATE",
    "MODIFIABLE",
    "COPYABLE",
    "SENSITIVE",
    "EXTRACTABLE",
    "ALWAYS_SENSITIVE",
    "NEVER_EXTRACTABLE",
    "LOCAL",
    "ENCRYPT",
    "DECRYPT",
    "SIGN",
    "VERIFY",
    "WRAP",
    "UNWRAP",
    "DERIVE",
    "ALLOWED_MECHANISMS",
)
_PUBLIC_PARTS = (
    Attribute.EC_PARAMS,
    Attribute.EC_POINT,
    Attribute.MODULUS,
    Attribute.PUBLIC_EXPONENT,
)
#: A record may be 4,096 bytes; one byte more than that shows that a value is too long.
_VALUE_READ = 4097
#: How often a look is begun anew because another agent destroyed an object meanwhile.
_LOOKS = 5


def _number_of(enumeration: type[IntEnum]) -> Callable[[bytes], int]:
    known = {int(member): member for member in enumeration}

    def unpack(packed: bytes) -> int:
        number: int = _ULONG.unpack(packed)[0]
        return known.get(number, number)

    return unpack


def _pack_number(value: int) -> bytes:
    return _ULONG.pack(int(value))


def _pack_numbers(values: list[int]) -> bytes:
    return b"".join(_ULONG.pack(value) for value in values)


def _unpack_numbers(packed: bytes) -> list[int]:
    return [number for (number,) in _ULONG.iter_unpack(packed)]


def _text(packed: bytes) -> str:
    return packed.decode("utf-8", errors="backslashreplace")


def attribute_mapper() -> AttributeMapper:
    """Return a mapper that knows ALLOWED_MECHANISMS and does not stumble over strangers."""
    mapper = AttributeMapper()
    mapper.register_handler(Attribute.ALLOWED_MECHANISMS, _pack_numbers, _unpack_numbers)
    mapper.register_handler(Attribute.CLASS, _pack_number, _number_of(ObjectClass))
    mapper.register_handler(Attribute.KEY_TYPE, _pack_number, _number_of(KeyType))
    for name in (Attribute.LABEL, Attribute.APPLICATION):
        mapper.register_handler(name, str.encode, _text)
    return mapper


MAPPER = attribute_mapper()


def template(values: Mapping[str, AttributeValue | bytes]) -> Template:
    """Return a python-pkcs11 template of those attributes, each proven to pack."""
    made: Template = {}
    for name, value in values.items():
        key = Attribute[name]
        try:
            # bool and ulong pack alike from each other's values; anything else here is our bug.
            MAPPER.pack_attribute(key, value)
        except Exception as error:
            raise InternalError(f"Attribute {name} cannot take a value of that type.") from error
        made[key] = value
    return made


def find(session: pkcs11.Session, **attributes: Any) -> list[pkcs11.Object]:
    """Return every object with those attributes. A search left early would block the session."""
    return list(session.get_objects(template(attributes)))


def read(found: pkcs11.Object, names: tuple[Attribute, ...]) -> dict[Attribute, Any]:
    """Return those attributes of an object that the token tells."""
    try:
        return dict(found.get_attributes(list(names)))
    except STALE_HANDLE:
        raise
    except PKCS11Error:
        # Some modules fail the whole question for one attribute that they do not know.
        known = {}
        for name in names:
            try:
                known[name] = found[name]
            except STALE_HANDLE:
                raise
            except PKCS11Error:
                continue
        return known


def kind_of(found: pkcs11.Object) -> str:
    """Return "private", "public", "secret", "data" or "other"."""
    return _KINDS.get(found[Attribute.CLASS], "other")


def label_of(found: pkcs11.Object) -> str:
    """Return the label alone; empty if there is none."""
    return str(read(found, (Attribute.LABEL,)).get(Attribute.LABEL, ""))


def describe(found: pkcs11.Object, profile: Profile) -> FoundObject:
    """Return an object as plain values, without what this kind of module must not be asked."""
    head = read(found, (Attribute.CLASS, Attribute.LABEL, Attribute.ID, Attribute.APPLICATION))
    kind = _KINDS.get(head.get(Attribute.CLASS), "other")
    application = head.get(Attribute.APPLICATION, "") if kind == "data" else ""
    ours = application in (STATE_APPLICATION, SENTINEL_APPLICATION)
    return FoundObject(
        kind=kind,
        label=head.get(Attribute.LABEL, ""),
        id=head.get(Attribute.ID, b""),
        attributes=_key_attributes(found, profile) if kind in KEY_KINDS else {},
        public_key=public_key(found) if kind == "public" else b"",
        application=application,
        # Data of other applications can be large, and is none of our business.
        value=read(found, (Attribute.VALUE,)).get(Attribute.VALUE, b"")[:_VALUE_READ]
        if ours
        else b"",
    )


def looked(look: Callable[[], Result]) -> Result:
    """Find objects and read them, anew if one of them went away in between: two agents on one token
    clear up after each other (docs/lifecycle.md). Nothing is left out, so that no record is missed.
    """
    for _ in range(_LOOKS - 1):
        try:
            return look()
        except STALE_HANDLE:
            continue
    return look()


def _key_attributes(found: pkcs11.Object, profile: Profile) -> dict[str, AttributeValue]:
    unasked = profile.unreadable_attributes
    wanted = {name: Attribute[name] for name in _KEY_ATTRIBUTES if name not in unasked}
    told = read(found, (Attribute.KEY_TYPE, *wanted.values()))
    key_type = told.get(Attribute.KEY_TYPE)
    return {
        "KEY_TYPE": key_type.name if isinstance(key_type, KeyType) else None,
        **{name: told.get(attribute) for name, attribute in wanted.items()},
    }


def public_key(found: pkcs11.Object, declared: KeyAlgorithm | None = None) -> bytes:
    """Return the SubjectPublicKeyInfo of a public key object, or nothing if it makes none (of the
    declared algorithm, where one is named)."""
    told = read(found, _PUBLIC_PARTS)
    return spki(
        told.get(Attribute.EC_PARAMS, b""),
        told.get(Attribute.EC_POINT, b""),
        told.get(Attribute.MODULUS, b""),
        told.get(Attribute.PUBLIC_EXPONENT, b""),
        declared,
    )
