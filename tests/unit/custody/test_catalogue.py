import re
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from keycustody.algorithms import Purpose
from keycustody.config import KeySettings
from keycustody.custody.keys.catalogue import DELIVERY_KEY, Catalogue, build, own_keys, remembered
from keycustody.custody.keys.evidence import Kind, name_and_number
from keycustody.custody.keys.memory import Memory, Seen
from keycustody.errors import (
    KeycustodyError,
    KeyNotFound,
    KeyNotTrusted,
    KeyPurpose,
    KeyRevoked,
    TokenNotProvisioned,
)
from keycustody.formats.state import State
from keycustody.token import profiles
from keycustody.token.api import AttributeValue, FoundObject, Scanned
from keycustody.token.attributes import AUDIT_NAME, DELIVERY_NAME
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
        (State.REVOKED, "unwrap", KeyRevoked),
        (State.DESTROYED, "unwrap", KeyRevoked),
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


@pytest.mark.parametrize("worst", [State.RETIRED, State.REVOKED])
def test_an_audit_key_that_is_not_active_signs_no_head_and_stops_nothing(worst: State) -> None:
    settings = own_keys(PROFILE)[AUDIT_NAME]
    found = objects(AUDIT_NAME, 1, settings, seed=8)
    seen = catalogue(record(found, AUDIT_NAME, 1, settings, worst=worst))
    assert seen.audit is None
    assert any("audit heads are not signed" in finding for finding in seen.findings)


def test_the_audit_key_is_believed_and_no_declared_one() -> None:
    seen = catalogue()
    assert seen.audit is not None
    assert AUDIT_NAME not in seen.keys


@pytest.mark.parametrize(
    ("profile", "algorithm"),
    [
        ("softhsm2", "ED25519"),
        ("nss", "EC_P256"),
        ("tpm2_pkcs11", "EC_P256"),
        ("p11_kit_remote", "EC_P256"),
        ("opencryptoki", None),
    ],
)
def test_which_audit_key_a_token_gets(profile: str, algorithm: str | None) -> None:
    key = own_keys(profiles.load(profile)).get(AUDIT_NAME)
    assert (key and key.algorithm) == algorithm


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
    public, undeclared = seen.findings
    assert public == "The token holds a public object labelled 'release.v1'; it is ignored."
    assert re.fullmatch(  # with what `keys adopt` wants
        r"stray\.v1 \(CKA_ID [0-9a-f]+\): is on the token, and not declared in the settings\.",
        undeclared,
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


# -- two agents ------------------------------------------------------------------------------------


def two_sets() -> tuple[list[FoundObject], list[FoundObject]]:
    """The sets of two agents that made version 1 at once, the lower id first."""
    first, second = (version("release", 1, RELEASE, seed=seed) for seed in (1, 2))
    return (first, second) if first[0].id < second[0].id else (second, first)


def test_of_two_recorded_sets_the_lowest_id_is_the_version() -> None:
    lower, higher = two_sets()
    for found in ([*lower, *higher], [*higher, *lower]):
        seen = catalogue(*found)
        assert seen.key("release").version(0, "sign").ref.id == lower[0].id
        assert [finding.kind for finding in seen.drift] == [Kind.TWIN]


def test_a_set_that_is_not_recorded_changes_nothing() -> None:
    lower, higher = two_sets()
    seen = catalogue(*lower[:-1], *higher)
    assert seen.key("release").version(0, "sign").ref.id == higher[0].id


def test_a_destroyed_version_does_not_come_back_as_its_twin() -> None:
    lower, higher = two_sets()
    gone = record(lower[:-1], "release", 1, RELEASE, worst=State.DESTROYED)
    key = catalogue(lower[-1], gone, *higher).key("release")
    with pytest.raises(KeyRevoked):
        key.version(1, "sign")


def test_records_of_one_set_may_hold_two_witnesses() -> None:
    found = objects("invoices", 1, INVOICES)
    one = record(found, "invoices", 1, INVOICES)
    other = replace(one, value=one.value.replace(b"77" * 72, b"66" * 72))
    ref = catalogue(*found, one, other).key("invoices").version(1, "unwrap").ref
    assert ref.witness == bytes.fromhex("66" * 72 + "77" * 72)


# -- memory and settings ---------------------------------------------------------------------------

MADE = datetime(2026, 1, 1, tzinfo=UTC)  # as `evidence.record` says


def with_memory(memory: Memory, *found: FoundObject, **settings: KeySettings) -> Catalogue:
    return build(scan(*found), DECLARED | settings, PROFILE, memory=memory)


def test_a_version_keeps_the_id_under_which_it_served() -> None:
    known = Memory().noting("release.v1", Seen("", id="ab" * 16))
    seen = with_memory(known, *version("release", 1, RELEASE))
    key = seen.key("release")
    with pytest.raises(KeyNotTrusted):
        key.version(1, "sign")
    assert [finding.kind for finding in seen.drift] == [Kind.IMPOSTOR]


@pytest.mark.parametrize("worst", [State.RETIRED, State.REVOKED, State.DESTROYED])
def test_what_was_seen_worse_stays_so(worst: State) -> None:
    known = Memory().noting("release.v1", Seen("", state=worst))
    found = version("release", 1, RELEASE)
    seen = with_memory(known, *found)
    assert seen.key("release").versions[0].state is worst
    assert [finding.kind for finding in seen.drift] == [Kind.STATE, Kind.INACTIVE]
    settings = RELEASE.model_copy(update={"states": {"1": worst.value}})
    seen = with_memory(Memory(), *found, release=settings)
    assert seen.key("release").versions[0].state is worst


def test_a_destroyed_version_needs_no_objects() -> None:
    found = objects("release", 1, RELEASE)
    gone = record(found, "release", 1, RELEASE, worst=State.DESTROYED)
    seen = catalogue(gone)
    assert seen.key("release").versions[0].state is State.DESTROYED
    assert [finding.kind for finding in seen.drift] == [Kind.INACTIVE]


def test_memory_holds_what_served_and_the_worst_state() -> None:
    seen = catalogue(*version("release", 1, RELEASE))
    memory = remembered(Memory(), seen.keys, MADE)
    id_ = seen.key("release").versions[0].ref.id.hex()
    assert memory.versions["release.v1"].id == id_
    worse = memory.noting("release.v1", Seen("", state=State.REVOKED, since="2026-01-02T00:00:00Z"))
    assert worse.versions["release.v1"].id == id_
    assert worse.noting("release.v1", Seen("", state=State.ACTIVE)) is worse


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "current"), [(0, 1), (15, 1), (16, 2), (60, 2)])
def test_a_new_version_serves_after_an_interval(seconds: int, current: int) -> None:
    found = [*version("release", 1, RELEASE), *version("release", 2, RELEASE, seed=2)]
    now = MADE + timedelta(seconds=seconds)
    key = build(scan(*found), DECLARED, PROFILE, now=now, interval=15).key("release")
    assert key.version(0, "sign").number == current
    assert key.version(2, "sign").number == 2
    alone = build(scan(*found[3:]), DECLARED, PROFILE, now=now, interval=15).key("release")
    assert alone.version(0, "sign").number == 2


@pytest.mark.parametrize(("days", "overdue"), [(89, False), (90, True)])
def test_a_key_is_overdue_after_its_period(days: int, overdue: bool) -> None:
    settings = {"release": RELEASE.model_copy(update={"rotation_days": 90})}
    now = MADE + timedelta(days=days)
    seen = build(scan(*version("release", 1, RELEASE)), settings, PROFILE, now=now)
    assert [finding.kind for finding in seen.drift] == [Kind.OVERDUE] * overdue


def test_a_key_without_an_active_version_is_not_ready() -> None:
    found = objects("release", 1, RELEASE)
    made = record(found, "release", 1, RELEASE)
    assert catalogue(*found, made).key("release").condition == "ready"
    revoked = record(found, "release", 1, RELEASE, worst=State.REVOKED)
    seen = catalogue(*found, made, revoked)
    assert "keys rotate release" in seen.key("release").condition
    assert [(one.kind, one.key) for one in seen.drift] == [(Kind.INACTIVE, "release")]
    assert "run apply" in catalogue().key("release").condition
