"""What the policy refuses: which rule, which operations, on which days."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycustody.config import KeySettings, Policy
from keycustody.config.findings import EXCEPTED, RULES, Refuses
from keycustody.custody.access.policy import NEW_USES, Verdict, judge
from keycustody.custody.keys.catalogue import build
from keycustody.errors import PolicyViolation
from tests.unit.custody.evidence import PROFILE, scan, version

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
USES = frozenset({"sign", "agree", "decrypt", "generate", "unwrap", "rewrap"})
GOOD: dict[str, Any] = {
    "sign": {
        "keys": ["EC_P256", "RSA_2048"],
        "algorithms": ["ECDSA_SHA_256", "RSA_PSS_SHA_256", "RSA_PKCS1_SHA_256"],
        "lifetime_days": 100,
    },
    "decrypt": {"keys": ["RSA_3072"], "algorithms": ["RSA_OAEP_SHA_256"], "lifetime_days": 100},
    "wrap": {"keys": ["AES_256_HMAC_SHA_256"], "lifetime_days": 100, "lease_seconds": 300},
}


def policy(**changes: Any) -> Policy:
    return Policy.model_validate(GOOD | changes)


def key(purpose: str = "sign", algorithm: str = "EC_P256", **more: Any) -> KeySettings:
    return KeySettings.model_validate(
        {"purpose": purpose, "algorithm": algorithm, "owner": "o", "rotation_days": 100} | more
    )


def verdict(declared: KeySettings, under: Policy | None) -> Verdict:
    return judge({"k": declared}, under)["k"]


def refused(of: Verdict, now: datetime = NOW, algorithm: str = "") -> frozenset[str]:
    """Return the operations that the verdict refuses."""
    found = set()
    for use in USES:
        try:
            of.check_request(use, algorithm, now)
        except PolicyViolation:
            found.add(use)
    return frozenset(found)


def exception(rule: str, expires: date, name: str = "k") -> dict[str, object]:
    return {"key": name, "rule": rule, "reason": "r", "approver": "a", "expires": expires}


#: The rule, a key that breaks it, and what is different in the policy.
BROKEN: Mapping[str, tuple[KeySettings, dict[str, Any]]] = {
    "purpose": (key("agree"), {}),
    "key-algorithm": (key(algorithm="EC_P384"), {}),
    "algorithm-status": (key(algorithm="RSA_2048"), {"minimum_status": "preferred"}),
    "prehashed": (key(prehashed=True), {}),
    "lease": (key("wrap", "AES_256_HMAC_SHA_256", lease={"seconds": 301}), {}),
    "owner": (key(owner="  "), {}),
    "rotation": (key(rotation_days=None), {}),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_refuses_what_its_row_says(rule: str) -> None:
    declared, changes = BROKEN[rule]
    found = verdict(declared, policy(**changes))

    assert [one.rule for one in found.standing(NOW.date())] == [rule]
    expected = {Refuses.ALL: USES, Refuses.NEW: NEW_USES, Refuses.NOTHING: frozenset()}
    assert refused(found) == expected[RULES[rule].refuses]


@pytest.mark.parametrize("rule", BROKEN)
@pytest.mark.parametrize("days", [-1, 0, 1])
def test_an_exception_counts_through_its_last_day(rule: str, days: int) -> None:
    declared, changes = BROKEN[rule]
    last = NOW.date() + timedelta(days=days)
    found = verdict(declared, policy(**changes, exceptions=[exception(rule, last)]))

    assert bool(list(found.standing(NOW.date()))) is (days < 0)
    assert refused(found) == (refused(verdict(declared, policy(**changes))) if days < 0 else set())


def test_an_exception_is_for_one_key_and_one_rule() -> None:
    declared = key(algorithm="EC_P384", prehashed=True)
    for one in (exception("key-algorithm", date.max, "other"), exception("lease", date.max)):
        found = verdict(declared, policy(exceptions=[one]))
        assert [o.rule for o in found.standing(NOW.date())] == ["key-algorithm", "prehashed"]


def test_what_obeys_is_not_refused() -> None:
    for declared in (key(), key("decrypt", "RSA_3072"), key("wrap", "AES_256_HMAC_SHA_256")):
        found = verdict(declared, policy())
        assert not found.objections
        assert not refused(found)
        assert found.describe(NOW) == ("keys.k: the policy has no objection",)


def test_reading_is_never_refused() -> None:
    declared, changes = BROKEN["key-algorithm"]
    verdict(declared, policy(**changes)).check_request("read", "", NOW)


def test_without_a_policy_nothing_is_asked() -> None:
    for declared, _ in BROKEN.values():
        assert not refused(verdict(declared, None))


@pytest.mark.parametrize(
    ("algorithm", "changes", "rule"),
    [
        ("ECDSA_SHA_256", {}, None),
        ("RSA_PSS_SHA_256", {}, None),
        ("RSA_PSS_SHA_512", {}, "request-algorithm"),
        ("RSA_PKCS1_SHA_256", {}, None),
        ("RSA_PKCS1_SHA_256", {"minimum_status": "preferred"}, "algorithm-status"),
    ],
)
def test_what_a_request_may_name(algorithm: str, changes: dict[str, Any], rule: str | None) -> None:
    found = verdict(key(), policy(**changes))
    if rule is None:
        found.check_request("sign", algorithm, NOW)
    else:
        with pytest.raises(PolicyViolation, match=rf"\[{rule}\]"):
            found.check_request("sign", algorithm, NOW)
        allowed = policy(**changes, exceptions=[exception(rule, NOW.date())])
        verdict(key(), allowed).check_request("sign", algorithm, NOW)


def test_a_decryption_that_is_not_listed_is_refused() -> None:
    found = verdict(key("decrypt", "RSA_3072"), policy())
    assert refused(found, algorithm="RSA_OAEP_SHA_1") == USES
    assert not refused(found, algorithm="RSA_OAEP_SHA_256")


# -- age -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", sorted(USES))
@pytest.mark.parametrize(("seconds", "old"), [(0, False), (1, True)])
def test_a_version_beyond_its_lifetime_only_reads(operation: str, seconds: int, old: bool) -> None:
    created = (NOW - timedelta(days=100, seconds=seconds)).isoformat()
    found = verdict(key(), policy())
    if old and operation in NEW_USES:
        with pytest.raises(PolicyViolation, match=r"version 3 is 100 days old.*\[lifetime\]"):
            found.check_version(NOW, operation, 3, created)
    else:
        found.check_version(NOW, operation, 3, created)


def test_an_exception_prolongs_a_lifetime() -> None:
    created = (NOW - timedelta(days=101)).isoformat()
    under = policy(exceptions=[exception("lifetime", NOW.date())])
    found = verdict(key(), under)

    found.check_version(NOW, "sign", 1, created)
    with pytest.raises(PolicyViolation):
        found.check_version(NOW + timedelta(days=1), "sign", 1, created)


def test_an_age_that_no_record_tells_is_not_judged() -> None:
    verdict(key(), policy()).check_version(NOW, "sign", 1, "")


def test_the_newest_version_of_the_catalogue_is_held_to_it() -> None:
    declared = key()
    found = build(scan(*version("k", 1, declared)), {"k": declared}, PROFILE).key("k")
    assert found.version(0, "sign").created == "2026-01-01T00:00:00Z"


@given(
    st.sampled_from(sorted(BROKEN)),
    st.dictionaries(st.sampled_from(EXCEPTED), st.dates(), max_size=4),
    st.dates(),
)
def test_an_exception_never_refuses_more(
    rule: str, exceptions: dict[str, date], today: date
) -> None:
    declared, changes = BROKEN[rule]
    now = datetime(today.year, today.month, today.day, tzinfo=UTC)
    given_ = [exception(name, last) for name, last in exceptions.items()]
    with_them = refused(verdict(declared, policy(**changes, exceptions=given_)), now)
    without = refused(verdict(declared, policy(**changes)), now)
    assert with_them <= without
    if today > exceptions.get(rule, date.min) or rule not in exceptions:
        assert with_them == without


# -- the file --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"colour": "red"},
        {"minimum_status": "legacy"},
        {"sign": {"keys": ["RSA_1024"], "algorithms": [], "lifetime_days": 1}},
        {"sign": {"keys": ["AES_256_HMAC_SHA_256"], "algorithms": [], "lifetime_days": 1}},
        {"sign": {"keys": [], "algorithms": ["RSA_PKCS1_SHA_1"], "lifetime_days": 1}},
        {"sign": {"keys": [], "algorithms": [], "lifetime_days": 0}},
        {"sign": {"keys": [], "algorithms": []}},
        {"agree": {"keys": [], "algorithms": [], "lifetime_days": 1}},
        {"exceptions": [exception("algorithm-legacy", date.max)]},
        {"exceptions": [exception("nonsense", date.max)]},
        {"exceptions": [exception("lease", date.max, "*")]},
        {"exceptions": [exception("lease", date.max) | {"reason": " "}]},
        {"exceptions": [exception("lease", date.max) | {"approver": ""}]},
        {"exceptions": [exception("lease", date.max), exception("lease", date.min)]},
    ],
    ids=repr,
)
def test_a_policy_that_does_not_fit_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        policy(**changes)
