"""Reload: the rules change at once, or not at all, and no request notices."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import keycustody as client
from keycustody.errors import AgentUnreachable, KeycustodyError, PermissionDenied
from tests.integration.command import FEW_KEYS, Command, prepare, refused, running

MORE = """
[principals.second]
[[grants]]
name = "second"
principals = ["second"]
keys = ["release"]
operations = ["read", "sign"]
"""
ALLOW = 'principals = ["demo"]\nkeys = ["*"]\noperations = ["read", "sign"]'


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """An agent whose settings the tests of this module change."""
    command = prepare(tmp_path_factory.mktemp("reload"))
    command.config.write_text(FEW_KEYS)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    with running(command):
        yield command


@pytest.fixture(autouse=True)
def afterwards(own: Command) -> Iterator[None]:
    """Every test finds the agent at the settings that it started with."""
    yield
    own.config.write_text(FEW_KEYS)
    own.ok("reload")


def until(true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def reloads(own: Command) -> list[tuple[str, str, str]]:
    return [
        (record["via"], record["result"], record["detail"].partition(":")[0])
        for record in own.records()
        if record["operation"] == "reload"
    ]


def test_a_grant_that_is_removed_allows_nothing_more(own: Command) -> None:
    with own.connect("demo") as agent:
        agent.sign("release", b"x")
        own.config.write_text(FEW_KEYS.replace(ALLOW, ALLOW.replace(', "sign"', "")))
        own.ok("reload")
        with pytest.raises(PermissionDenied):
            agent.sign("release", b"x")


def test_a_file_with_a_finding_changes_nothing(own: Command) -> None:
    with own.connect("admin") as admin, own.connect("demo") as agent:
        before = admin.status().rules
        own.config.write_text(FEW_KEYS.replace(ALLOW, "") + "surprise = true\n")
        refused_with = own("reload")
        assert refused_with.returncode == 1
        lines = refused_with.stderr.decode().splitlines()
        assert all("[CONFIG_INVALID]" in line for line in lines)
        assert any("surprise" in line for line in lines)
        agent.sign("release", b"x")
        status = admin.status()
        assert status.rules == before
        assert any("last reload was refused" in finding for finding in status.findings)
        assert reloads(own)[-2:] == [
            ("socket", "OK", "intent"),
            ("socket", "CONFIG_INVALID", "failed"),
        ]
        own.config.write_text(FEW_KEYS)
        own.ok("reload")
        assert not any("refused" in finding for finding in admin.status().findings)


def test_a_file_that_anybody_may_change_is_not_followed(own: Command) -> None:
    own.config.chmod(0o646)
    try:
        refused(own("reload"), "INSECURE_PERMISSIONS")
    finally:
        own.config.chmod(0o644)
    own.ok("reload")


@pytest.mark.parametrize("group", ["no-such-group", "no\\u0000name"])
def test_a_group_that_is_not_there_changes_nothing(own: Command, group: str) -> None:
    own.config.write_text(FEW_KEYS + MORE.replace("[[", f'group = "{group}"\n[[', 1))
    refused(own("reload"), "SOCKET_UNUSABLE")
    with pytest.raises(AgentUnreachable), own.connect("second") as agent:
        agent.keys()


def test_sockets_come_and_go(own: Command) -> None:
    own.config.write_text(FEW_KEYS + MORE)
    own.ok("reload")
    with own.connect("second") as agent:
        agent.sign("release", b"x")
        own.config.write_text(FEW_KEYS)
        own.ok("reload")
        with pytest.raises(KeycustodyError):
            agent.sign("release", b"x")
    assert not own.socket("second").exists()
    own.config.write_text(FEW_KEYS + MORE)
    own.ok("reload")
    with own.connect("second") as agent:
        agent.sign("release", b"x")


def test_what_needs_a_restart_is_named_and_the_rest_taken(own: Command) -> None:
    changed = FEW_KEYS.replace("[principals.demo]", "[audit]\nhead_records = 7\n[principals.demo]")
    own.config.write_text(changed.replace("scan_seconds", "connections = 5\nscan_seconds") + MORE)
    output = own.ok("reload").decode()
    assert "audit waits for a restart" in output
    assert "limits.connections waits for a restart" in output
    with own.connect("second") as agent, own.connect("admin") as admin:
        agent.sign("release", b"x")
        assert any(
            "wait for a restart: audit, limits.connections" in f for f in admin.status().findings
        )


def test_only_operators_reload(own: Command) -> None:
    with own.connect("demo") as agent, pytest.raises(client.KeycustodyError) as caught:
        agent.reload()
    assert caught.value.code == "UNIMPLEMENTED"


def test_sighup_under_traffic_fails_no_request(own: Command) -> None:
    stop = threading.Event()
    failures: list[KeycustodyError] = []
    signed = [0, 0, 0]

    def load(number: int) -> None:
        with own.connect("demo") as agent:
            while not stop.is_set():
                try:
                    agent.sign("release", b"x")
                    signed[number] += 1
                except KeycustodyError as error:
                    failures.append(error)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for text, outcome in 2 * [
            (FEW_KEYS + MORE, "done"),
            (FEW_KEYS + "oops", "failed"),
            (FEW_KEYS, "done"),
        ]:
            before = len(reloads(own))
            own.config.write_text(text)
            os.kill(own.agent_pid(), signal.SIGHUP)
            until(lambda n=before: len(reloads(own)) == n + 2, "the reload left no record")  # type: ignore[misc]
            assert reloads(own)[-2:] == [
                ("signal", "OK", "intent"),
                ("signal", "OK" if outcome == "done" else "CONFIG_INVALID", outcome),
            ]
            counts = list(signed)
            until(lambda c=counts: all(map(int.__gt__, signed, c)), "traffic stood still")  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
