import pytest
from msgspec.structs import replace

from keycustody.algorithms import Purpose
from keycustody.config import KeySettings
from keycustody.custody.lifecycle import Action, plan
from keycustody.errors import KeyNotTrusted, TokenNotProvisioned
from keycustody.token.api import Scanned
from keycustody.token.attributes import AUDIT_NAME, DELIVERY_NAME
from tests.unit.custody.evidence import PROFILE, PROVISIONED, SENTINEL, objects, scan, version

RELEASE = KeySettings(purpose=Purpose.SIGN, algorithm="EC_P256")
DECLARED = {"release": RELEASE}


def test_an_empty_token_gets_everything() -> None:
    steps = plan(Scanned([], []), DECLARED, PROFILE)
    assert [(step.action, step.name, step.number) for step in steps] == [
        (Action.MARK, "", 0),
        (Action.CREATE, DELIVERY_NAME, 1),
        (Action.CREATE, AUDIT_NAME, 1),
        (Action.CREATE, "release", 1),
    ]
    assert steps[3].describe() == "create release.v1: EC_P256 for sign"


def test_what_is_there_is_left_alone() -> None:
    assert plan(scan(*version("release", 1, RELEASE)), DECLARED, PROFILE) == []


def test_an_interrupted_run_is_finished() -> None:
    (step,) = plan(scan(*objects("release", 1, RELEASE)), DECLARED, PROFILE)
    assert (step.action, step.number) == (Action.RECORD, 1)


def test_a_key_that_is_not_as_we_make_them_is_not_recorded() -> None:
    private, public = objects("release", 1, RELEASE)
    imported = replace(private, attributes=private.attributes | {"LOCAL": False})
    seen = scan(imported, public)
    with pytest.raises(KeyNotTrusted, match="LOCAL"):
        plan(seen, DECLARED, PROFILE)


def test_a_token_that_hides_its_sentinel_is_left_alone() -> None:
    seen = Scanned([one for one in PROVISIONED if one is not SENTINEL], [])
    with pytest.raises(TokenNotProvisioned):
        plan(seen, DECLARED, PROFILE)
