"""A busy agent's metrics: as documented, of what happened, and without a secret."""

import re
import secrets
from collections.abc import Iterator

import pytest

from keycustody.errors import AuditUnavailable, KeycustodyError, PermissionDenied
from keycustody.telemetry.families import METRICS
from tests.integration.command import FEW_KEYS, PROJECT, Command, prepare, running
from tests.integration.scraping import eventually, metrics, scrape, value

SETTINGS = (
    FEW_KEYS.replace("[limits]", "[limits]\nself_test_seconds = 1.0").replace(
        'algorithm = "EC_P256"', 'algorithm = "EC_P256"\nrotation_days = 90', 1
    )
    + """
[keys.invoices]
purpose = "wrap"
[[grants]]
principals = ["demo"]
name = "metered"
keys = ["invoices"]
budgets = [{ session_keys = 100, seconds = 60 }]
operations = ["generate", "unwrap"]
[audit]
head_seconds = 0.2
[metrics]
socket = "../var/run/metrics/metrics.sock"
"""
)
_ROW = re.compile(r"^\| `(keycustody_[a-z0-9_]+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """An agent with metrics that has served, refused and failed."""
    command = prepare(tmp_path_factory.mktemp("metrics"), more="")
    command.config.write_text(SETTINGS)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    with running(command) as agent:
        yield command
        agent.terminate()
        said = agent.communicate(timeout=20)[1].decode()
        assert '"event": "agent.ready"' in said
        assert '"event": "agent.stopping"' in said


def test_requests_are_counted_by_who_what_which_and_how_it_ended(command: Command) -> None:
    with command.connect("demo") as agent:
        for _ in range(3):
            agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
        for name in ("nowhere", f"made-up-{secrets.token_hex(4)}"):
            with pytest.raises(KeycustodyError):
                agent.sign(name, b"x", algorithm="ECDSA_SHA_256")
    found = metrics(command)
    labels = {"principal": "demo", "operation": "sign", "key": "release", "result": "OK"}
    assert value(found, "keycustody_requests", **labels) == 3
    refused = {**labels, "key": "other", "result": "KEY_NOT_FOUND"}
    assert value(found, "keycustody_requests", **refused) == 2
    assert value(found, "keycustody_items", operation="sign", result="OK") == 3
    assert value(found, "keycustody_self_test_ok", key="release", version="1") == 1
    assert value(found, "keycustody_token_up") == value(found, "keycustody_scan_fresh") == 1
    assert 89.9 < value(found, "keycustody_key_rotation_days", key="release") <= 90


def test_the_journal_and_its_heads_are_measured(command: Command) -> None:
    with command.connect("demo") as agent:
        agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
    found = eventually(command, lambda found: not value(found, "keycustody_audit_unsigned_records"))
    assert value(found, "keycustody_audit_unsigned_seconds") == 0
    assert value(found, "keycustody_audit_heads_ok") == 1
    assert value(found, "keycustody_audit_writable") == 1
    assert value(found, "keycustody_self_test_ok", key="keycustody:audit", version="1") == 1
    (writes,) = [
        sample.value
        for sample in found["keycustody_audit_write_seconds"].samples
        if sample.name.endswith("_count")
    ]
    assert 1 < writes <= value(found, "keycustody_audit_sequence")
    status = command.ok("status").decode()
    assert re.search(r"signed head +of record [0-9]+, [0-9]+ s ago; ", status), status
    assert "EC_P256 (preferred)" in status


def test_denials_that_were_only_counted_are_told(command: Command) -> None:
    with command.connect("demo") as agent:
        for _ in range(30):
            with pytest.raises(PermissionDenied):
                agent.session("release", context={"a": "b"})
    assert 1 <= value(metrics(command), "keycustody_audit_denials_counted") <= 30


def test_a_journal_that_cannot_be_written_is_shown_until_it_can(command: Command) -> None:
    failures = value(metrics(command), "keycustody_audit_write_failures")
    (path,) = (command.folder / "var" / "state").glob("audit-*.jsonl")
    away = path.rename(path.with_name("away"))
    try:
        with command.connect("demo") as agent, pytest.raises(AuditUnavailable):
            agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
        found = metrics(command)
        assert value(found, "keycustody_audit_writable") == 0
        assert value(found, "keycustody_audit_write_failures") > failures
    finally:
        away.rename(path)
    with command.connect("demo") as agent:
        agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
    assert value(metrics(command), "keycustody_audit_writable") == 1
    eventually(command, lambda found: value(found, "keycustody_audit_heads_ok") == 1)


def test_budgets_are_shown_as_they_are_used(command: Command) -> None:
    labels = {"principal": "demo", "grant": "metered", "window": "60"}
    before = value(metrics(command), "keycustody_budget_used", **labels)
    with command.connect("demo") as agent:
        with agent.session("invoices", context={"of": "budget"}) as session:
            box = session.encrypt(b"x")
    with command.connect("demo") as agent:
        agent.decrypt(box, key="invoices", context={"of": "budget"})
    found = metrics(command)
    assert value(found, "keycustody_budget_used", **labels) == before + 1
    assert value(found, "keycustody_budget_limit", **labels) == 100


def test_the_parts_of_a_request_make_up_the_whole(command: Command) -> None:
    """Of unwrapping: the agent itself has the token sign, for audit heads."""
    with command.connect("demo") as agent:
        with agent.session("invoices", context={"of": "parts"}) as session:
            box = session.encrypt(b"x")

    def seconds() -> list[float]:
        found = metrics(command)
        return [
            sum(
                sample.value
                for sample in found[f"keycustody_{part}_seconds"].samples
                if sample.name.endswith("_sum") and set(sample.labels.values()) == {label}
            )
            for part, label in (
                *(("request", "unwrap"), ("request_rest", "unwrap")),
                *(("token_queue", "UnwrapSessionKeys"), ("token_work", "UnwrapSessionKeys")),
            )
        ]

    before = seconds()
    for _ in range(10):
        with command.connect("demo") as agent:
            agent.decrypt(box, key="invoices", context={"of": "parts"})
    whole, *parts = (now - then for now, then in zip(seconds(), before, strict=True))
    assert all(part > 0 for part in parts)
    assert sum(parts) == pytest.approx(whole, rel=0.5)


def test_the_document_lists_what_a_scrape_has_and_no_more(command: Command) -> None:
    document = {
        name: (kind, set(re.findall("`([a-z0-9]+)`", labels)))
        for name, kind, labels in _ROW.findall((PROJECT / "docs" / "metrics.md").read_text())
    }
    scraped = {}
    for family in metrics(command).values():
        suffix = "_total" if family.type == "counter" else ""
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        scraped[family.name + suffix] = (family.type, labels)
    assert set(document) == set(scraped)
    for name, (kind, labels) in scraped.items():
        assert document[name][0] == kind, name
        # A family that has no sample yet shows no labels; the table of the code has them.
        assert labels in (set(), document[name][1]), name
        declared = METRICS[
            name.removeprefix("keycustody_").removesuffix("_total").removesuffix("_info")
        ][1]
        assert set(declared) in (set(), document[name][1]), name


def test_no_secret_is_in_a_scrape(command: Command) -> None:
    secret = secrets.token_hex(16)
    with command.connect("demo") as agent:
        agent.sign("release", secret.encode(), algorithm="ECDSA_SHA_256")
        with agent.session("invoices", context={"a": secret}) as session:
            box = session.encrypt(secret.encode())
        agent.decrypt(box, key="invoices", context={"a": secret})
    text = scrape(command)
    assert b'operation="unwrap"' in text or b'operation="generate"' in text
    pins = [(command.folder / "var" / name).read_bytes().strip() for name in ("pin", "so-pin")]
    for canary in (*pins, secret.encode()):
        assert canary not in text


def test_the_socket_is_for_the_agents_group_only(command: Command) -> None:
    path = command.folder / "var/run/metrics/metrics.sock"
    assert path.stat().st_mode & 0o777 == 0o660
    assert path.parent.stat().st_mode & 0o022 == 0
