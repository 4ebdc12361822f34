"""docs/policy.md says what the code does, member by member and rule by rule."""

from pathlib import Path

import pytest

from tests.unit.check.policy_document import MODELS, members, rules, statuses

_PAGE = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()


@pytest.mark.parametrize("table", [*members()], ids=[model.__name__ for model in MODELS])
def test_every_member_is_there(table: str) -> None:
    assert table in _PAGE, "run: python -m tests.unit.check.policy_document"


def test_every_rule_is_there() -> None:
    assert rules() in _PAGE


def test_every_status_is_there() -> None:
    assert statuses() in _PAGE
