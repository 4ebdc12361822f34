import pytest

from keycustody.config import ADMIN, GrantSettings, KeySettings, Limits
from keycustody.custody.rules import Rules
from keycustody.errors import PermissionDenied

GRANTS = (
    GrantSettings(name="ci", principals=("ci",), keys=("release",), operations=("sign", "read")),
    GrantSettings(principals=("billing", "ci"), keys=("inv*",), operations=("generate", "unwrap")),
)
RULES = Rules("00", GRANTS, {"release": KeySettings(purpose="wrap")}, Limits())


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
        ("ci", "sign", "RELEASE", None),
        ("ci", "unwrap", "keycustody:delivery", None),
        ("ci", "status", "", None),
        (ADMIN, "sign", "release", None),
        ("", "", "", None),
    ],
)
def test_default_deny(principal: str, operation: str, key: str, grant: str | None) -> None:
    if grant is not None:
        assert RULES.decide(principal, operation, key) == grant
    else:
        with pytest.raises(PermissionDenied):
            RULES.decide(principal, operation, key)


def test_only_operators_administer() -> None:
    assert RULES.decide_admin(ADMIN, "status") == ADMIN
    with pytest.raises(PermissionDenied):
        RULES.decide_admin("ci", "status")


def test_only_readable_keys_are_visible() -> None:
    assert RULES.visible("ci") == ("release",)
    assert RULES.visible("billing") == ()
