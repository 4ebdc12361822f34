"""Every profile is a whole: what it says of itself fits together, and the documents repeat it."""

from pathlib import Path

import pytest

from keycustody.algorithms import DECRYPTIONS, KEYS, Purpose, Scheme
from keycustody.config import TokenSettings
from keycustody.token.attributes import objects_of
from keycustody.token.profiles import NAMES, Profile, load

_DOCUMENT = Path(__file__).parents[3] / "docs" / "tokens.md"

profiles = pytest.mark.parametrize("profile", [pytest.param(load(name), id=name) for name in NAMES])


def test_settings_can_name_every_profile_and_no_other() -> None:
    assert TokenSettings.model_json_schema()["properties"]["profile"]["enum"] == list(NAMES)


def test_a_profile_that_there_is_not_is_no_module_to_import() -> None:
    with pytest.raises(KeyError):
        load("os")


@profiles
def test_a_profile_names_itself_and_known_algorithms(profile: Profile) -> None:
    assert load(profile.name) is profile
    assert profile.keys <= KEYS.keys()
    assert profile.decryptions <= DECRYPTIONS.keys()
    assert profile.description
    assert "\n" not in profile.description


@profiles
def test_every_key_of_a_profile_serves_something(profile: Profile) -> None:
    for algorithm in profile.keys:
        purposes = [p for p in KEYS[algorithm].purposes if profile.serves(p, algorithm)]
        assert purposes, algorithm


@profiles
def test_nothing_is_served_that_the_profile_has_no_key_for(profile: Profile) -> None:
    for algorithm in KEYS.keys() - profile.keys:
        assert not any(profile.serves(purpose, algorithm) for purpose in Purpose)


@profiles
def test_every_served_key_is_one_purpose_and_stays_in_the_token(profile: Profile) -> None:
    for algorithm in profile.keys:
        for purpose in KEYS[algorithm].purposes:
            if not profile.serves(purpose, algorithm):
                continue
            for one in objects_of(purpose.value, algorithm, profile):
                uses = {"DECRYPT", "SIGN", "UNWRAP", "DERIVE"} & {
                    k for k, v in one.set.items() if v
                }
                if one.kind == "private":
                    assert len(uses) == 1
                if one.kind != "public":
                    assert one.set["SENSITIVE"] is True
                    assert one.set["EXTRACTABLE"] is False
                    assert one.expected()["NEVER_EXTRACTABLE"] is True
                assert one.set["PRIVATE"] is True
                assert one.set["MODIFIABLE"] is False


@profiles
def test_a_mechanism_that_a_key_is_limited_to_has_a_number(profile: Profile) -> None:
    for mechanism in (*profile.schemes.values(), profile.oaep, profile.agree, profile.wrap):
        if mechanism is not None:
            assert Profile.mechanism_number(mechanism) > 0


@profiles
def test_an_attribute_is_told_only_if_it_is_set(profile: Profile) -> None:
    for kind in ("private", "public", "secret", "data"):
        for attribute in ("ALLOWED_MECHANISMS", "COPYABLE", "ENCRYPT", "VERIFY", "PRIVATE"):
            if profile.shows(kind, attribute):
                assert profile.sets(kind, attribute)


@profiles
def test_whoever_cannot_limit_or_check_something_says_so(profile: Profile) -> None:
    weakened = (
        profile.unknown_attributes | profile.unreadable_attributes
        or not profile.data_objects
        or profile.unknown_public_attributes
    )
    assert profile.weaker or not weakened


@profiles
def test_the_document_has_every_weakness_of_every_profile(profile: Profile) -> None:
    text = " ".join(_DOCUMENT.read_text().split())
    for sentence in profile.weaker:
        assert sentence in text


def test_softhsm_serves_everything() -> None:
    profile = load("softhsm2")
    assert profile.keys == KEYS.keys()
    assert profile.schemes.keys() == set(Scheme)
    assert profile.sealed_delivery
    assert profile.unknown_attributes == frozenset()
