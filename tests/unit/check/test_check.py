"""Each planted weakness is found by its rule, and nothing is found where nothing is wrong."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from keycustody.check import check
from keycustody.config.findings import RULES, Finding, Severity
from tests.unit.check.planted import (
    NOW,
    TODAY,
    WEAKNESSES,
    Weakness,
    certify,
    excepted,
    settings,
    write,
)

_ROOT = Path(__file__).parents[3]
#: Found by a running agent alone, or only once an algorithm's status changes.
_NOT_PLANTED = {"lifetime", "algorithm-legacy"}
#: What a weakness brings with it: an exception that is over leaves the rule broken.
_WITH = {"exception-expired": {"prehashed"}}


def found(folder: Path) -> list[Finding]:
    return check([folder / "settings.toml"], NOW)


def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    write(tmp_path)
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    "weakness", [pytest.param(one, id=f"{one.rule} {one.name}".strip()) for one in WEAKNESSES]
)
def test_a_planted_weakness_is_found(tmp_path: Path, weakness: Weakness) -> None:
    write(tmp_path)
    weakness.plant(tmp_path)

    findings = found(tmp_path)

    assert (weakness.rule, weakness.path) in {(one.rule, one.path) for one in findings}
    assert {one.rule for one in findings} == {weakness.rule} | _WITH.get(weakness.rule, set())
    for one in findings:
        assert re.fullmatch(r"\S+: (\S+: )?(error|warning): .+\. \[[a-z-]+\]", str(one)), str(one)


def test_every_rule_is_planted() -> None:
    assert {one.rule for one in WEAKNESSES} | _NOT_PLANTED == RULES.keys()


def test_nothing_is_found_in_what_is_shipped() -> None:
    assert check(sorted((_ROOT / "hsm_config").glob("*.toml")), NOW) == []


def test_what_is_not_there_is_not_judged(tmp_path: Path) -> None:
    path = write(tmp_path)
    for name in ("pins/pin", "pins/so-pin", "module.so", "tls/agent.pem", "tls/ca.pem"):
        (tmp_path / name).unlink()
    (tmp_path / "state").rmdir()
    assert check([path], NOW) == []


def test_an_exception_silences_its_rule_until_it_ends(tmp_path: Path) -> None:
    write(tmp_path)
    settings('owner = "release"\n', "")(tmp_path)
    excepted("owner", TODAY + timedelta(days=100), key="release")(tmp_path)
    path = tmp_path / "settings.toml"

    def on(days: int) -> list[tuple[str, str]]:
        now = NOW + timedelta(days=days)
        return [(f.rule, f.path) for f in check([path], now) if not f.path.startswith("tls")]

    assert on(0) == []
    assert on(70) == [("exception-expiring", "exceptions.0.expires")]
    assert on(100) == [("exception-expiring", "exceptions.0.expires")]
    assert on(101) == [
        ("owner", "keys.release.owner"),
        ("exception-expired", "exceptions.0.expires"),
    ]


@pytest.mark.parametrize("rule", ["grant-context", "grant-budget"])
def test_an_exception_silences_what_is_asked_of_grants(tmp_path: Path, rule: str) -> None:
    write(tmp_path)
    for one in WEAKNESSES:
        if one.rule == rule:
            one.plant(tmp_path)
    excepted(rule, TODAY + timedelta(days=100), key="invoices")(tmp_path)
    assert found(tmp_path) == []


def test_an_exception_that_one_of_several_files_needs_is_used(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "other.toml").write_bytes((tmp_path / "settings.toml").read_bytes())
    settings('owner = "release"\n', "")(tmp_path)
    excepted("owner", TODAY + timedelta(days=100), key="release")(tmp_path)

    alone = check([tmp_path / "other.toml"], NOW)
    together = check([tmp_path / "other.toml", tmp_path / "settings.toml"], NOW)

    assert [one.rule for one in alone] == ["exception-unused"]
    assert together == []


def test_a_policy_alone_is_judged_as_one(tmp_path: Path) -> None:
    write(tmp_path)
    excepted("owner", TODAY - timedelta(days=1))(tmp_path)
    (one,) = check([tmp_path / "policy.toml"], NOW)
    assert (one.rule, one.path) == ("exception-expired", "exceptions.0.expires")


def test_what_two_files_share_is_told_once(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "other.toml").write_bytes((tmp_path / "settings.toml").read_bytes())
    (tmp_path / "policy.toml").write_text("sign = 3")
    findings = check([tmp_path / "other.toml", tmp_path / "settings.toml"], NOW)
    assert [one.rule for one in findings] == ["policy-invalid"]


def test_how_far_ahead_it_looks_can_be_said(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "settings.toml"
    certify(tmp_path, timedelta(days=40), crl=timedelta(days=40))
    assert check([path], NOW, warn_days=39) == []
    assert {one.rule for one in check([path], NOW, warn_days=40)} == {"certificate-expiring"}


@pytest.mark.parametrize(("lifetime", "left", "warned"), [(30, 11, 0), (30, 9, 1), (7, 2, 1)])
def test_short_certificates_are_warned_of_in_their_last_third(
    tmp_path: Path, lifetime: int, left: int, warned: int
) -> None:
    path = write(tmp_path)
    rest = timedelta(days=left)
    certify(tmp_path, rest, crl=rest, old=timedelta(days=lifetime) - rest)
    found = [(one.rule, one.path) for one in check([path], NOW)]
    members = ("tls.certificate", "tls.crl")
    assert found == [("certificate-expiring", member) for member in members] * warned


def test_a_finding_has_the_severity_of_its_rule() -> None:
    assert Finding("f", "p", "owner", "m.").severity is Severity.ERROR
    assert Finding("f", "p", "key-unused", "m.").severity is Severity.WARNING
