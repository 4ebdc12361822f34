"""`explain`, and that docs/policy.md's examples are so."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.integration.command import FEW_KEYS, PROJECT, Command, refused

_PAGE = (PROJECT / "docs" / "policy.md").read_text()
_GRANTS = next(re.finditer(r"^## Grants\n.*?```toml\n(.*?)```", _PAGE, re.DOTALL | re.MULTILINE))[1]
_SHELL = next(re.finditer(r"^## Explain\n.*?```sh\n(.*?)```", _PAGE, re.DOTALL | re.MULTILINE))[1]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The page's grants, and neither token nor agent."""
    folder = tmp_path_factory.mktemp("explain")
    command = Command(folder)
    command.config.parent.mkdir()
    command.config.write_text(FEW_KEYS + _GRANTS)
    return Command(folder, {"KEYCUSTODY_CONFIG": str(command.config)})


@pytest.mark.parametrize("line", _SHELL.splitlines())
def test_the_pages_examples_end_as_it_says(command: Command, line: str) -> None:
    arguments = shlex.split(line, comments=True)[1:]
    done = command(*arguments)
    assert (done.returncode, done.stderr) == (1 if "# denied" in line else 0, b"")
    assert not Path(command.folder / "var").exists()


def test_it_says_of_each_grant_what_fails(command: Command) -> None:
    done = command(
        *("explain", "--principal", "billing", "--operation", "unwrap", "--key", "invoices"),
        *("--context", "tenant=42", "--context", "service=Billing", "--json"),
    )
    answer = json.loads(done.stdout)
    assert answer["grant"] is None
    assert [(one["name"], one["condition"]) for one in answer["grants"]] == [
        ("grants.0", "principal"),
        ("billing-invoices", "context"),
        ("reports-q1", "principal"),
        ("reports-read", "principal"),
    ]
    assert "'service' differs" in answer["grants"][1]["reason"]
    assert answer["grants"][1]["limits"] == [
        {"per_second": 20.0, "burst": 200, "used": None},
        {"session_keys": 500, "seconds": 3600, "used": None},
        {"session_keys": 2000, "seconds": 86400, "used": None},
    ]


def asked(key: str, principal: str = "demo") -> list[str]:
    return ["explain", "--principal", principal, "--operation", "sign", "--key", key]


def test_it_shows_what_a_person_needs(command: Command) -> None:
    done = command(*asked("release"))
    assert done.returncode == 0
    assert b"allowed by grant grants.0" in done.stdout
    done = command(*asked("no-such-key"))
    assert done.returncode == 1  # a pattern allows it, and there is nothing to allow
    assert b"though grant grants.0 allows it: the key is not declared" in done.stdout
    done = command(*asked("release", "nobody"))
    assert done.returncode == 1
    assert b"principal         is not declared" in done.stdout


def test_what_a_grant_allows_and_the_key_cannot_do_is_refused(command: Command) -> None:
    sign = command(*asked("invoices"), "--json")
    answer = json.loads(sign.stdout)
    assert (sign.returncode, answer["grant"]) == (1, "grants.0")
    assert answer["refused"] == "the key is for wrap, not sign."
    assert command(*asked("release"), "--json").returncode == 0


def test_what_the_policy_refuses_is_refused(command: Command) -> None:
    other = command.config.with_name("strict.toml")
    policy = '[agree]\nkeys = ["EC_P256"]\nlifetime_days = 365\n'
    other.with_name("strict_policy.toml").write_text(policy)
    other.write_text('policy = "strict_policy.toml"\n' + command.config.read_text())
    done = command(*asked("release"), "--config", other)
    assert done.returncode == 1
    assert b"though grant grants.0 allows it" in done.stdout
    assert b"[purpose]" in done.stdout


def test_an_operation_that_there_is_not_is_no_denial(command: Command) -> None:
    done = command("explain", "--principal", "demo", "--operation", "singn", "--key", "release")
    assert done.returncode == 2
    assert b"read, sign, agree" in done.stderr


def test_a_context_that_no_request_can_have_is_refused(command: Command) -> None:
    refused(command(*asked("release"), "--context", f"a={'x' * 1025}"), "INVALID_CONTEXT")


@pytest.mark.parametrize(
    "at",
    [
        "tomorrow",
        "2027-01-01T00:00:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_a_time_that_is_none_is_wrong_usage(command: Command, at: str) -> None:
    assert command(*asked("release"), "--at", at).returncode == 2


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (_GRANTS.replace('"reports-q1"', '"reports-read"'), "another grant's"),
        (_GRANTS.replace("seconds = 86400", "seconds = 3600"), "another length"),
        (_GRANTS.replace('tenant = "42"', '"" = "42"'), "key is empty"),
        (_GRANTS.replace('name = "billing-invoices"', ""), "needs a name"),
        (_GRANTS.replace("2027-01-01", "2028-01-01"), "not_before must be before"),
    ],
)
def test_grants_that_contradict_themselves_are_found(
    command: Command, text: str, finding: str
) -> None:
    other = command.config.with_name("other.toml")
    other.write_text(FEW_KEYS + text)
    done = command(*asked("release"), "--config", other)
    refused(done, "CONFIG_INVALID")
    assert finding in done.stderr.decode()
