"""The decision: default deny, each condition alone, and nothing that a plain reading refuses."""

import fnmatch
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keycustody.config import ADMIN, GrantSettings, KeySettings, Limits, RateSettings
from keycustody.custody.access.counters import Counters
from keycustody.custody.access.grants import Ask, Condition, Uncounted
from keycustody.custody.access.rules import Decision, Rules, grants_of
from keycustody.errors import BudgetExceeded, PermissionDenied, RateExceeded

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW = NOON.timestamp()


def rules(*grants: dict[str, Any]) -> Rules:
    plain = {"principals": ("ci",), "keys": ("release",), "operations": ("sign",)}
    made = tuple(GrantSettings.model_validate(plain | grant) for grant in grants)
    return Rules("00", grants_of(made), {"release": KeySettings(purpose="wrap")}, Limits())


def decide(snapshot: Rules, ask: Ask, now: float = NOW) -> Decision:
    return snapshot.decide(ask, Uncounted(), now)


RULES = rules(
    {"name": "ci", "operations": ("sign", "read")},
    {"principals": ("billing", "ci"), "keys": ("inv*",), "operations": ("generate", "unwrap")},
)


@pytest.mark.parametrize(
    ("principal", "operation", "key", "grant"),
    [
        ("ci", "sign", "release", "ci"),
        ("ci", "unwrap", "invoices", "grants.1"),
        ("billing", "generate", "inv", "grants.1"),
        ("billing", "sign", "release", None),
        ("billing", "unwrap", "release", None),
        ("nobody", "sign", "release", None),
        ("CI", "sign", "release", None),
        ("ci", "agree", "release", None),
        ("ci", "sign", "release2", None),
        ("ci", "sign", "release\n", None),
        ("ci", "unwrap", "inv\n", "grants.1"),  # no key name; refused before any decision
        ("ci", "sign", "RELEASE", None),
        ("ci", "unwrap", "keycustody:delivery", None),
        ("ci", "status", "", None),
        (ADMIN, "sign", "release", None),
        ("", "", "", None),
    ],
)
def test_default_deny(principal: str, operation: str, key: str, grant: str | None) -> None:
    decision = decide(RULES, Ask(principal, operation, key))
    assert (decision.grant and decision.grant.name) == grant
    if grant is None:
        assert isinstance(decision.error(), PermissionDenied)


TENANT = {"keys": ("invoices",), "operations": ("unwrap",), "context": {"tenant": "42"}}


@pytest.mark.parametrize(
    ("grant", "ask", "failed"),
    [
        ({"principals": ("else",)}, {}, None),
        ({"keys": ("other",)}, {}, Condition.KEY),
        ({"operations": ("read",)}, {}, Condition.OPERATION),
        ({**TENANT}, {"context": {}}, Condition.CONTEXT),
        ({**TENANT}, {"context": {"tenant": "43"}}, Condition.CONTEXT),
        ({**TENANT}, {"context": {"tenant": "42 "}}, Condition.CONTEXT),
        ({**TENANT}, {"context": {"Tenant": "42"}}, Condition.CONTEXT),
        ({**TENANT, "context": {"t": "\u00fc"}}, {"context": {"t": "u\u0308"}}, Condition.CONTEXT),
        ({**TENANT, "context": {"t": "{principal}"}}, {"context": {"t": "cI"}}, Condition.CONTEXT),
        (
            {**TENANT, "context": {"t": "{principal}"}},
            {"context": {"t": "{principal}"}},
            Condition.CONTEXT,
        ),
        ({"not_before": datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC)}, {}, Condition.NOT_BEFORE),
        ({"not_after": datetime(2026, 1, 1, 11, 59, 59, tzinfo=UTC)}, {}, Condition.NOT_AFTER),
        ({"name": "r", "rate": {"per_second": 1.0, "burst": 2}}, {"count": 3}, Condition.RATE),
        (
            {**TENANT, "name": "b", "budgets": ({"session_keys": 1, "seconds": 9},)},
            {"context": {"tenant": "42"}, "session_keys": {b"1", b"2"}},
            Condition.BUDGET,
        ),
    ],
)
def test_each_condition_that_fails_is_told(
    grant: dict[str, Any], ask: dict[str, Any], failed: Condition | None
) -> None:
    key, operation = grant.get("keys", ("release",))[0], grant.get("operations", ("sign",))[0]
    if failed in (Condition.KEY, Condition.OPERATION):
        key, operation = "release", "sign"
    decision = decide(rules(grant), Ask("ci", operation, key, **ask))
    assert decision.grant is None
    assert [why.condition for _, why in decision.refusals] == ([failed] if failed else [])
    assert "42" not in decision.error().message


@pytest.mark.parametrize(
    ("grant", "context"),
    [
        (TENANT, {"tenant": "42"}),
        (TENANT, {"tenant": "42", "more": "may be there"}),
        ({**TENANT, "context": {"who": "x-{principal}"}}, {"who": "x-ci"}),
        ({**TENANT, "not_before": NOON, "context": {}}, {}),
        ({**TENANT, "not_after": NOON, "context": {}}, {}),
    ],
)
def test_a_condition_that_holds_allows(grant: dict[str, Any], context: dict[str, str]) -> None:
    assert decide(rules(grant), Ask("ci", "unwrap", "invoices", context)).grant is not None


def test_the_first_grant_that_allows_everything_wins() -> None:
    spent = {"name": "narrow", "rate": {"per_second": 1.0, "burst": 1}}
    snapshot = rules(spent, {"name": "wide"}, {"name": "late"})
    assert decide(snapshot, Ask("ci", "sign", "release")).grant == snapshot.grants[0]
    decision = decide(snapshot, Ask("ci", "sign", "release", count=2))
    assert decision.grant == snapshot.grants[1]
    assert [grant.name for grant, _ in decision.refusals] == ["narrow"]


def test_what_is_spent_is_told_with_the_time_to_wait_and_nothing_else_is() -> None:
    snapshot = rules(
        {"name": "r", "rate": RateSettings(per_second=0.5, burst=1)},
        {"name": "x", "not_after": datetime(2020, 1, 1, tzinfo=UTC)},
    )
    counters = Counters(snapshot.grants)
    ask = Ask("ci", "sign", "release")
    counters.reserve(snapshot.grants[0], ask, NOW)
    error = snapshot.decide(ask, counters, NOW).error()
    assert isinstance(error, RateExceeded)
    assert error.retry_after == pytest.approx(2)
    assert "2 s" in error.message
    never = snapshot.decide(Ask("ci", "sign", "release", count=2), counters, NOW).error()
    assert isinstance(never, RateExceeded)
    assert never.retry_after is None
    late = snapshot.decide(ask, counters, NOW + 2)
    assert late.grant == snapshot.grants[0]


def test_a_budget_that_is_spent_is_told() -> None:
    snapshot = rules(TENANT | {"name": "b", "budgets": ({"session_keys": 1, "seconds": 60},)})
    counters = Counters(snapshot.grants)
    first, second = (
        Ask("ci", "unwrap", "invoices", {"tenant": "42"}, session_keys={name})
        for name in (b"1", b"2")
    )
    charge = counters.reserve(snapshot.grants[0], first, NOW)
    assert charge is not None
    charge.settle([b"1"], NOW)
    error = snapshot.decide(second, counters, NOW + 20).error()
    assert isinstance(error, BudgetExceeded)
    assert error.retry_after == pytest.approx(40)


NAMES = st.sampled_from(["a", "b", "ab"])
CONTEXTS = st.dictionaries(NAMES, st.sampled_from(["a", "b", "{principal}"]), max_size=2)
MOMENTS = st.one_of(st.none(), st.integers(0, 4).map(lambda n: datetime(2026, 1, 1, n, tzinfo=UTC)))
OPERATIONS = st.sampled_from(["generate", "unwrap", "rewrap"])
PATTERNS = st.sampled_from(["a", "a*", "*b", "*"])
GRANT: dict[str, st.SearchStrategy[Any]] = {
    "principals": st.lists(NAMES, min_size=1, max_size=2).map(tuple),
    "keys": st.lists(st.sampled_from(["a", "a*", "*b", "*"]), min_size=1, max_size=2).map(tuple),
    "operations": st.lists(OPERATIONS, min_size=1, max_size=2).map(tuple),
    "context": CONTEXTS,
    "not_before": MOMENTS,
    "not_after": MOMENTS,
}


def consistent(grant: dict[str, Any]) -> bool:
    start, end = grant["not_before"], grant["not_after"]
    return start is None or end is None or bool(start < end)


GRANTS = st.fixed_dictionaries(GRANT).filter(consistent)


@given(
    st.lists(GRANTS, max_size=4),
    st.builds(Ask, NAMES, OPERATIONS, NAMES, CONTEXTS),
    st.floats(0, 5),
)
def test_it_allows_what_a_plain_reading_of_the_grants_allows(
    grants: list[dict[str, Any]], ask: Ask, hour: float
) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC).timestamp() + 3600 * hour

    def allows(grant: dict[str, Any]) -> bool:
        return (
            ask.principal in grant["principals"]
            and ask.operation in grant["operations"]
            and any(fnmatch.fnmatchcase(ask.key, key) for key in grant["keys"])
            and all(
                ask.context.get(name, None) == value.replace("{principal}", ask.principal)
                for name, value in grant["context"].items()
            )
            and (grant["not_before"] is None or now >= grant["not_before"].timestamp())
            and (grant["not_after"] is None or now <= grant["not_after"].timestamp())
        )

    decision = decide(rules(*grants), ask, now)
    expected = next((n for n, grant in enumerate(grants) if allows(grant)), None)
    assert (decision.grant and decision.grant.name) == (
        None if expected is None else f"grants.{expected}"
    )
    # And it names each grant before that which names the principal.
    naming = [n for n, grant in enumerate(grants) if ask.principal in grant["principals"]]
    before = [n for n in naming if expected is None or n < expected]
    assert [grant.name for grant, _ in decision.refusals] == [f"grants.{n}" for n in before]


def test_only_operators_administer() -> None:
    assert RULES.decide_admin(ADMIN, "status") == ADMIN
    with pytest.raises(PermissionDenied):
        RULES.decide_admin("ci", "status")


def test_only_keys_that_may_be_read_now_are_visible() -> None:
    assert RULES.visible("ci", NOW) == ("release",)
    assert RULES.visible("billing", NOW) == ()
    expired = rules({"operations": ("read",), "not_after": NOON})
    assert expired.visible("ci", NOW) == ("release",)
    assert expired.visible("ci", math.nextafter(NOW, math.inf)) == ()
