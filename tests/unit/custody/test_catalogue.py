import pytest
from msgspec.structs import replace

from keycustody.algorithms import Purpose
from keycustody.config import KeySettings
from keycustody.custody.catalogue import DELIVERY_KEY, Catalogue, build, name_and_number
from keycustody.errors import (
    KeycustodyError,
    KeyNotFound,
    KeyNotTrusted,
    KeyPurpose,
    TokenNotProvisioned,
)
from keycustody.formats.state import State
from keycustody.token.api import AttributeValue, FoundObject, Scanned
from keycustody.token.attributes import DELIVERY_NAME
from tests.unit.custody.evidence import (
    PROFILE,
    PROVISIONED,
    SENTINEL,
    objects,
    public_key,
    record,
    scan,
    version,
)

RELEASE = KeySettings(purpose=Purpose.SIGN, algorithm="EC_P256")
INVOICES = KeySettings(purpose=Purpose.WRAP)
DECLARED = {"release": RELEASE, "invoices": INVOICES}


def catalogue(*found: FoundObject, public: list[str] | None = None) -> Catalogue:
    return build(scan(*found, public=public or []), DECLARED, PROFILE)


def test_whole_versions_are_served_newest_first_asked() -> None:
    seen = catalogue(
        *version("release", 1, RELEASE),
        *version("release", 2, RELEASE, seed=2),
        *version("invoices", 1, INVOICES),
    )
    release = seen.key("release")
    assert [v.number for v in release.versions] == [1, 2]
    assert release.version(0, "sign").number == 2
    assert release.version(1, "sign").public_key == public_key(1)
    assert seen.key("invoices").version(0, "unwrap").number == 1
    assert seen.findings == ()
    assert seen.delivery is not None


def test_ten_versions_are_ordered_as_numbers() -> None:
    found = [one for n in range(1, 12) for one in version("release", n, RELEASE, seed=n)]
    assert catalogue(*found).key("release").version(0, "sign").number == 11


def weaken(name: str, value: AttributeValue, kind: str = "private") -> list[FoundObject]:
    found = objects("release", 1, RELEASE)
    spoilt = [
        replace(one, attributes=one.attributes | {name: value}) if one.kind == kind else one
        for one in found
    ]
    return [*spoilt, record(found, "release", 1, RELEASE)]


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("LOCAL", False, "private"),
        ("ALWAYS_SENSITIVE", False, "private"),
        ("NEVER_EXTRACTABLE", False, "private"),
        ("EXTRACTABLE", True, "private"),
        ("SENSITIVE", False, "private"),
        ("MODIFIABLE", True, "private"),
        ("COPYABLE", True, "private"),
        ("PRIVATE", False, "private"),
        ("DECRYPT", True, "private"),
        ("DERIVE", True, "private"),
        ("SIGN", None, "private"),
        ("ALLOWED_MECHANISMS", [], "private"),
        ("ALLOWED_MECHANISMS", [0x1041, 0x1050], "private"),
        ("ALLOWED_MECHANISMS", None, "private"),
        ("PRIVATE", False, "public"),
        ("LOCAL", False, "public"),
        ("MODIFIABLE", True, "public"),
        ("ENCRYPT", True, "public"),
    ],
)  # fmt: skip
def test_a_weaker_attribute_is_not_served(name: str, value: AttributeValue, kind: str) -> None:
    seen = catalogue(*weaken(name, value, kind))
    key = seen.key("release")
    with pytest.raises(KeyNotTrusted):
        key.version(0, "sign")
    assert any("release.v1" in finding and name in finding for finding in seen.findings)


def planted() -> dict[str, list[FoundObject]]:
    good = objects("release", 1, RELEASE)
    whole = [*good, record(good, "release", 1, RELEASE)]
    private, public = good
    malformed = replace(whole[-1], value=b"{}")
    contradicting = record(objects("release", 1, RELEASE, seed=3), "release", 1, RELEASE)
    of_other = replace(record(good, "other", 1, RELEASE), label="release.v1")
    of_second = replace(record(good, "release", 2, RELEASE), label="release.v1")
    with_witness = replace(
        whole[-1], value=whole[-1].value.replace(b'"witness":""', b'"witness":"%s"' % (b"77" * 72))
    )
    agree = KeySettings(purpose=Purpose.AGREE, algorithm="EC_P256")
    return {
        "no record": good,
        "no objects": [record(good, "release", 1, RELEASE)],
        "two private keys": [*whole, private],
        "two public keys": [*whole, public],
        "a private key of another type": [
            replace(private, attributes=private.attributes | {"KEY_TYPE": "RSA"}),
            *whole[1:],
        ],
        "a private key of another id": [*whole, replace(private, id=b"x" * 16)],
        "a secret key besides": [*whole, replace(private, kind="secret")],
        "no public key": [private, whole[-1]],
        "another public key": [private, replace(public, public_key=public_key(9)), whole[-1]],
        "a malformed record": [*good, malformed],
        "records that contradict": [*whole, contradicting],
        "a record of another name": [*good, of_other],
        "a record of another version": [*good, of_second],
        "a record with a witness": [*good, with_witness],
        "declared otherwise": version("release", 1, agree),
    }


@pytest.mark.parametrize("what", planted())
def test_what_is_not_exactly_ours_is_not_served(what: str) -> None:
    seen = catalogue(*planted()[what])
    key = seen.key("release")
    with pytest.raises(KeyNotTrusted):
        key.version(0, "sign")
    assert any(finding.startswith("release.v1: ") for finding in seen.findings)


def test_an_impostor_in_a_newer_version_does_not_replace_the_older() -> None:
    seen = catalogue(*version("release", 1, RELEASE), *objects("release", 2, RELEASE, seed=5))
    assert seen.key("release").version(0, "sign").number == 1
    assert any(finding.startswith("release.v2: ") for finding in seen.findings)


@pytest.mark.parametrize(
    ("worst", "operation", "error"),
    [
        (State.RETIRED, "generate", KeyNotFound),
        (State.RETIRED, "unwrap", None),
        (State.REVOKED, "unwrap", KeyNotFound),
        (State.DESTROYED, "unwrap", KeyNotFound),
    ],
)
def test_the_worst_state_wins(
    worst: State, operation: str, error: type[KeycustodyError] | None
) -> None:
    found = objects("invoices", 1, INVOICES)
    later = record(found, "invoices", 1, INVOICES, time="2027-01-01T00:00:00Z")
    seen = catalogue(*found, record(found, "invoices", 1, INVOICES, worst=worst), later)
    key = seen.key("invoices")
    if error is None:
        assert key.version(1, operation).state is worst
    else:
        with pytest.raises(error):
            key.version(1, operation)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        (b'"version":9', b'"version":4294967296'),
        (b'"version":9', b'"version":0'),
        (b'"id":"', b'"id":"zz'),
        (b'"time":"2026-01-01', b'"time":"yesterday'),
        (b'"purpose":"', b'"purpose":"\xff'),
    ],
    ids=["a version too high", "version 0", "an id", "a time", "bytes that are no text"],
)
def test_a_forged_record_spoils_its_own_version_alone(member: bytes, value: bytes) -> None:
    found = objects("release", 9, RELEASE, seed=9)
    good = record(found, "release", 9, RELEASE)
    assert member in good.value
    forged = replace(good, value=good.value.replace(member, value))
    seen = catalogue(*version("release", 1, RELEASE), *found, forged)
    assert seen.key("release").version(0, "sign").number == 1
    assert any(finding.startswith("release.v9: ") for finding in seen.findings)


def test_a_wrap_version_without_a_witness_is_not_served() -> None:
    found = objects("invoices", 1, INVOICES)
    kept = record(found, "invoices", 1, INVOICES)
    bare = replace(kept, value=kept.value.replace(b"77" * 72, b""))
    key = catalogue(*found, bare).key("invoices")
    with pytest.raises(KeyNotTrusted):
        key.version(1, "unwrap")


def test_a_revoked_delivery_key_delivers_nothing() -> None:
    found = objects(DELIVERY_NAME, 1, DELIVERY_KEY, seed=7)
    revoked = record(found, DELIVERY_NAME, 1, DELIVERY_KEY, worst=State.REVOKED)
    seen = scan(revoked)
    with pytest.raises(TokenNotProvisioned):
        build(seen, DECLARED, PROFILE)


def test_another_purpose_is_refused() -> None:
    key = catalogue(*version("release", 1, RELEASE)).key("release")
    with pytest.raises(KeyPurpose):
        key.version(0, "unwrap")


def test_declared_and_missing_is_told_apart_from_unknown() -> None:
    seen = catalogue()
    key = seen.key("release")
    with pytest.raises(KeyNotFound, match="run apply"):
        key.version(0, "sign")
    with pytest.raises(KeyNotFound, match="no key"):
        seen.key("nothing")


def test_public_and_undeclared_objects_are_reported() -> None:
    seen = catalogue(*version("stray", 1, RELEASE), public=["release.v1", "holiday.jpg"])
    assert seen.findings == (
        "The token holds a public object labelled 'release.v1'; it is ignored.",
        "stray.v1: is on the token, and not declared in the settings.",
    )


@pytest.mark.parametrize("hidden", [[SENTINEL], PROVISIONED[1:]], ids=["sentinel", "delivery key"])
def test_a_scan_that_saw_too_little_is_not_used(hidden: list[FoundObject]) -> None:
    seen = Scanned([one for one in PROVISIONED if one not in hidden], [])
    with pytest.raises(TokenNotProvisioned):
        build(seen, DECLARED, PROFILE)


@pytest.mark.parametrize(
    ("label", "parsed"),
    [
        ("release.v1", ("release", 1)),
        ("a.v2.v10", ("a.v2", 10)),
        ("release.v01", ("", 0)),
        ("release.v0", ("", 0)),
        ("release.v", ("", 0)),
        (".v1", ("", 0)),
        ("release.v1 ", ("", 0)),
        ("release.v" + "9" * 5000, ("", 0)),
        ("release.v4294967295", ("release", 4294967295)),
        ("release.v4294967296", ("", 0)),
        ("release.v\u0661", ("", 0)),
        ("", ("", 0)),
    ],
)
def test_labels(label: str, parsed: tuple[str, int]) -> None:
    assert name_and_number(label) == parsed
