"""The table of attributes, and what it says of objects that differ from it."""

import pytest
from msgspec.structs import replace

from keycustody.algorithms import KEYS
from keycustody.token import profiles
from keycustody.token.api import FoundObject
from keycustody.token.attributes import KeyObject, amiss, objects_of

SOFTHSM = profiles.load("softhsm2")
ID = bytes(range(16))
_VERSIONS = [(purpose.value, key.name) for key in KEYS.values() for purpose in sorted(key.purposes)]


def _found(wanted: KeyObject) -> FoundObject:
    return FoundObject(wanted.kind, "k.v1", ID, wanted.expected())


@pytest.mark.parametrize(("purpose", "algorithm"), _VERSIONS)
def test_what_is_as_it_was_made_has_nothing_amiss(purpose: str, algorithm: str) -> None:
    wanted = objects_of(purpose, algorithm, SOFTHSM)
    assert amiss(wanted, ID, [_found(one) for one in wanted]) == []


@pytest.mark.parametrize(("purpose", "algorithm"), _VERSIONS)
def test_any_attribute_that_differs_or_is_not_told_is_amiss(purpose: str, algorithm: str) -> None:
    wanted = objects_of(purpose, algorithm, SOFTHSM)
    for position, one in enumerate(wanted):
        for name, value in one.expected().items():
            for wrong in (None, not value if isinstance(value, bool) else "other"):
                found = [_found(other) for other in wanted]
                attributes = {**found[position].attributes, name: wrong}
                found[position] = replace(found[position], attributes=attributes)
                assert amiss(wanted, ID, found), (one.kind, name, wrong)


@pytest.mark.parametrize(("purpose", "algorithm"), _VERSIONS)
def test_every_key_is_private_and_stays_as_it_is(purpose: str, algorithm: str) -> None:
    for one in objects_of(purpose, algorithm, SOFTHSM):
        assert (one.set["PRIVATE"], one.set["MODIFIABLE"], one.set["COPYABLE"]) == (
            True,
            False,
            False,
        )
        if one.kind != "public":
            assert (one.set["SENSITIVE"], one.set["EXTRACTABLE"]) == (True, False)
            assert one.set["ALLOWED_MECHANISMS"]
        uses = {"ENCRYPT", "DECRYPT", "SIGN", "VERIFY", "WRAP", "UNWRAP", "DERIVE"}
        assert len({use for use in uses if one.set.get(use)}) <= 2


def test_missing_doubled_and_foreign_objects_are_amiss() -> None:
    wanted = objects_of("sign", "EC_P256", SOFTHSM)
    private, public = (_found(one) for one in wanted)
    stranger = FoundObject("secret", "k.v1", ID, {"KEY_TYPE": "AES"})
    for found in (
        [],
        [private],
        [public],
        [private, public, public],
        [private, private, public],
        [private, public, stranger],
        [private, replace(public, id=bytes(16))],
    ):
        assert amiss(wanted, ID, found)


def test_what_a_profile_does_not_know_is_neither_set_nor_checked() -> None:
    profile = profiles.load("p11_kit_remote")
    (private, _) = objects_of("sign", "EC_P256", profile)
    assert "ALLOWED_MECHANISMS" in private.set
    assert "ALLOWED_MECHANISMS" not in private.expected()
