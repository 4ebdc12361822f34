"""Plans: from what a token shows to the steps of a change."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from keycustody.algorithms import Purpose
from keycustody.config import KeySettings
from keycustody.custody.keys.catalogue import View, own_keys
from keycustody.custody.keys.evidence import Kind
from keycustody.custody.keys.memory import Memory, Seen
from keycustody.custody.lifecycle import (
    Action,
    Adopt,
    Apply,
    Change,
    Destroy,
    Retire,
    Revoke,
    Rotate,
    Step,
)
from keycustody.custody.lifecycle.planning import Survey, plan
from keycustody.errors import (
    InvalidRequest,
    InvalidTransition,
    KeyNotFound,
    KeyNotTrusted,
    TokenNotProvisioned,
)
from keycustody.formats.state import State
from keycustody.token.api import FoundObject, Scanned
from tests.unit.custody.evidence import (
    PROFILE,
    PROVISIONED,
    SENTINEL,
    objects,
    record,
    scan,
    version,
)

RELEASE = KeySettings(purpose=Purpose.SIGN, algorithm="EC_P256", rotation_days=90)
MADE = datetime(2026, 1, 1, tzinfo=UTC)  # as `evidence.record` says
DAY = timedelta(days=1)
SECOND = version("release", 2, RELEASE, seed=2)


def survey(
    seen: Scanned, *, now: datetime = MADE, memory: Memory | None = None, **changes: object
) -> Survey:
    declared = {"release": RELEASE.model_copy(update=changes)}
    return Survey.of(seen, View(declared, PROFILE, memory or Memory(), now, 15.0))


def steps(change: Change, *found: FoundObject, **given: object) -> list[tuple[Action, str, int]]:
    made = plan(change, survey(scan(*found), **given))  # type: ignore[arg-type]
    return [(step.action, step.key, step.version) for step in made]


def first(worst: State = State.ACTIVE, time: str = "2026-01-01T00:00:00Z") -> list[FoundObject]:
    found = objects("release", 1, RELEASE)
    made = record(found, "release", 1, RELEASE)
    return [*found, made, record(found, "release", 1, RELEASE, worst=worst, time=time)]


def stranger(id_: bytes) -> FoundObject:
    """A private key that somebody else made."""
    return replace(objects("stray", 1, RELEASE)[0], label="stray", id=id_)


def test_an_empty_token_gets_everything() -> None:
    made = plan(Apply(), survey(Scanned([], [])))
    assert [(step.action, step.key, step.version) for step in made] == [
        (Action.MARK, "", 0),
        *((Action.CREATE, name, 1) for name in own_keys(PROFILE)),
        (Action.CREATE, "release", 1),
    ]
    assert made[-1].text == "create release.v1: EC_P256 for sign"


def test_what_is_there_is_left_alone() -> None:
    assert steps(Apply(), *first()) == []


def test_an_interrupted_run_is_finished() -> None:
    assert steps(Apply(), *objects("release", 1, RELEASE)) == [(Action.RECORD, "release", 1)]


def test_what_this_agent_left_half_made_is_cleared_and_made_anew() -> None:
    private, _ = objects("release", 1, RELEASE)
    memory = Memory().beginning("release.v1", private.id)
    assert steps(Apply(), private, memory=memory) == [
        (Action.DISCARD, "release", 1),
        (Action.CREATE, "release", 1),
    ]
    assert steps(Apply(), private) == []  # somebody else's is left alone


def test_a_key_that_is_not_as_we_make_them_is_reported_and_left() -> None:
    private, public = objects("release", 1, RELEASE)
    imported = replace(private, attributes=private.attributes | {"LOCAL": False})
    seen = survey(scan(imported, public))
    assert plan(Apply(), seen) == []
    assert [finding.kind for finding in seen.sight.drift] == [Kind.IMPOSTOR]


def test_a_token_that_hides_its_sentinel_is_left_alone() -> None:
    seen = survey(Scanned([one for one in PROVISIONED if one is not SENTINEL], []))
    with pytest.raises(TokenNotProvisioned):
        plan(Apply(), seen)


# -- rotation --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [Adopt("release", b"\x0a"), Rotate(), Rotate("release")], ids=repr
)
def test_only_apply_provisions_a_token(change: Change) -> None:
    with pytest.raises(TokenNotProvisioned, match="keys apply"):
        plan(change, survey(Scanned([], [])))


def test_a_rotation_makes_the_next_version() -> None:
    assert steps(Rotate("release"), *first()) == [(Action.CREATE, "release", 2)]


def test_a_rotation_that_was_just_made_is_the_same_rotation() -> None:
    both = [*first(), *SECOND]
    assert steps(Rotate("release"), *both, now=MADE + timedelta(seconds=10)) == []
    later = MADE + timedelta(seconds=17)
    assert steps(Rotate("release"), *both, now=later) == [(Action.CREATE, "release", 3)]


def test_a_rotation_that_was_interrupted_is_finished() -> None:
    found = [*first(), *SECOND[:-1]]
    assert steps(Rotate("release"), *found) == [(Action.RECORD, "release", 2)]


def test_a_number_is_never_used_twice() -> None:
    memory = Memory().noting("release.v7", Seen("", state=State.DESTROYED))
    assert steps(Rotate("release"), *first(), memory=memory) == [(Action.CREATE, "release", 8)]


def test_a_token_older_than_the_memory_gets_numbers_past_those_that_it_lost() -> None:
    seen = Seen("2026-01-01T00:00:00Z", "ab" * 16)
    memory = Memory().noting("release.v1", seen).noting("release.v2", seen)
    # Under the number of a key that was served, another one would be refused as an impostor.
    assert steps(Apply(), memory=memory) == [(Action.CREATE, "release", 3)]
    found = scan(stranger(b"\x09"))
    adopted = next(iter(plan(Adopt("release", b"\x09"), survey(found, memory=memory))))
    assert adopted.version == 3
    with pytest.raises(InvalidRequest, match="another key"):
        plan(Adopt("release", b"\x09", 2), survey(scan(), memory=memory))


def test_what_was_seen_and_is_gone_is_missing_until_it_was_destroyed() -> None:
    memory = Memory().noting("release.v2", Seen("", "ab" * 16))
    memory = memory.noting("release.v3", Seen("", state=State.DESTROYED))
    memory = memory.noting("another.v1", Seen("", "cd" * 16))
    found = survey(scan(*first()), memory=memory).sight.drift
    assert [(one.kind, one.key, one.version) for one in found] == [(Kind.MISSING, "release", 2)]


@pytest.mark.parametrize(("days", "due"), [(89, False), (90, True)])
def test_due_keys_are_those_that_are_overdue(days: int, due: bool) -> None:
    found = steps(Rotate(), *first(), now=MADE + days * DAY)
    assert found == ([(Action.CREATE, "release", 2)] if due else [])


def test_an_undeclared_key_is_not_rotated() -> None:
    with pytest.raises(KeyNotFound):
        steps(Rotate("other"))


@pytest.mark.parametrize(
    ("after", "old_versions", "retired"),
    [
        (timedelta(seconds=86_400), "retire", False),
        (timedelta(seconds=86_415), "retire", True),
        (timedelta(seconds=86_415), "keep", False),
    ],
)
def test_a_superseded_version_is_retired_after_its_overlap(
    after: timedelta, old_versions: str, retired: bool
) -> None:
    found = steps(Apply(), *first(), *SECOND, now=MADE + after, old_versions=old_versions)
    assert found == ([(Action.STATE, "release", 1)] if retired else [])


# -- states ----------------------------------------------------------------------------------------


def revoke(*found: FoundObject) -> list[Step]:
    return plan(Revoke("release", 1, "lost"), survey(scan(*found)))


def test_a_version_is_revoked_with_a_reason_and_once() -> None:
    (step,) = revoke(*first())
    assert (step.action, step.state, step.reason) == (Action.STATE, State.REVOKED, "lost")
    assert revoke(*first(State.REVOKED)) == []


def test_there_is_no_way_back() -> None:
    with pytest.raises(InvalidTransition):
        steps(Retire("release", 1), *first(State.REVOKED))
    with pytest.raises(InvalidTransition):
        revoke(*first(State.DESTROYED))


def test_what_is_no_version_cannot_be_revoked() -> None:
    with pytest.raises(KeyNotFound):
        steps(Revoke("release", 9, "lost"), *first())


@pytest.mark.parametrize("worst", [State.ACTIVE, State.RETIRED])
def test_only_what_is_revoked_can_be_destroyed(worst: State) -> None:
    with pytest.raises(InvalidTransition, match="Revoke it first"):
        steps(Destroy("release", 1, "release"), *first(worst), now=MADE + 99 * DAY)


def test_destruction_waits() -> None:
    found = first(State.REVOKED, "2026-01-02T00:00:00Z")
    destroy = Destroy("release", 1, "release")
    with pytest.raises(InvalidTransition, match="7 days"):
        steps(destroy, *found, now=MADE + 8 * DAY - timedelta(seconds=1))
    assert steps(destroy, *found, now=MADE + 8 * DAY) == [
        (Action.STATE, "release", 1),
        (Action.DESTROY, "release", 1),
    ]


def test_a_destruction_that_was_interrupted_is_finished_by_whatever_comes_next() -> None:
    found = first(State.DESTROYED)
    for change in (Apply(), Destroy("release", 1, "release")):
        assert steps(change, *found) == [(Action.DESTROY, "release", 1)]
        assert steps(change, *found[2:]) == []


def test_a_destroyed_key_is_not_made_again() -> None:
    assert steps(Apply(), *first(State.DESTROYED)[2:]) == []


def test_what_was_seen_revoked_is_told_to_the_token_again() -> None:
    memory = Memory().noting(
        "release.v1", Seen("", "", State.REVOKED, "2026-01-05T00:00:00Z", "lost")
    )
    (step,) = plan(Apply(), survey(scan(*first()), memory=memory))
    assert (step.state, step.since, step.reason) == (State.REVOKED, "2026-01-05T00:00:00Z", "lost")


def test_settings_never_have_anything_destroyed() -> None:
    (step,) = plan(Apply(), survey(scan(*first()), states={"1": "destroyed"}))
    assert step.state is State.REVOKED


@pytest.mark.parametrize("confirm", ["", "releas", "Release"])
def test_a_name_that_is_not_repeated_exactly_destroys_nothing(confirm: str) -> None:
    with pytest.raises(InvalidRequest):
        Destroy("release", 1, confirm)


# -- adoption --------------------------------------------------------------------------------------


def test_a_key_that_has_a_name_gets_no_second_one() -> None:
    found = first()
    assert steps(Adopt("release", found[0].id), *found) == []
    other = version("other", 1, RELEASE, seed=3)
    with pytest.raises(InvalidRequest, match=r"other\.v1"):
        steps(Adopt("release", other[0].id), *other)


def test_an_adopted_key_becomes_the_next_version() -> None:
    found = [*first(), stranger(b"old")]
    assert steps(Adopt("release", b"old"), *found) == [(Action.ADOPT, "release", 2)]
    with pytest.raises(KeyNotFound, match="keys plan"):
        steps(Adopt("release", b"new"), *found)
    with pytest.raises(InvalidRequest):
        steps(Adopt("release", b"old", 1), *first())


def test_records_that_contradict_change_no_state() -> None:
    found = first()
    forged = replace(found[-1], value=b"{}")
    with pytest.raises(KeyNotTrusted):
        steps(Revoke("release", 1, "lost"), *found, forged)
