"""A running agent whose token's keys are changed under it: refused, told, recorded, and resumed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from keycustody.errors import KeycustodyError
from tests.integration.command import FEW_KEYS, Command, prepare, running
from tests.integration.token import softhsm_objects as store

SETTINGS = (
    FEW_KEYS.replace("[limits]", "[limits]\nself_test_seconds = 1.0")
    + """
[keys.other]
purpose = "sign"
algorithm = "EC_P256"
"""
)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """An agent on a token with the delivery key and two signing keys."""
    command = prepare(tmp_path_factory.mktemp("health"), more="")
    command.config.write_text(SETTINGS)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    with running(command):
        yield command


def until(reached: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while not (value := reached()):
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.1)
    return value


def code_of(command: Command, key: str) -> str:
    try:
        with command.connect("demo") as agent:
            agent.sign(key, b"x", algorithm="ECDSA_SHA_256")
    except KeycustodyError as error:
        return error.code
    return "OK"


def private_keys(command: Command) -> list[store.ObjectFile]:
    return store.objects(command.folder / "var/softhsm", store.PRIVATE_KEY, store.EC)


def serves(command: Command) -> bool:
    with grpc.insecure_channel(f"unix:{command.socket('demo')}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]
        answer = check(health_pb2.HealthCheckRequest())
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def changes(command: Command) -> list[tuple[str, str]]:
    return [
        (record["key"], record["result"])
        for record in command.records()
        if record["operation"] == "self-test" and record["principal"] == "agent"
    ]


def test_a_key_that_fails_is_refused_until_it_passes_again(command: Command) -> None:
    assert [code_of(command, key) for key in ("release", "other")] == ["OK", "OK"]
    before = changes(command)
    delivery, first, second = private_keys(command)
    first.replace(store.CKA_VALUE, delivery.value(store.CKA_VALUE))
    failed = until(lambda: {key for key in ("release", "other") if code_of(command, key) != "OK"})
    assert {code_of(command, key) for key in failed} == {"KEY_UNHEALTHY"}
    assert len(failed) == 1
    with command.connect("admin") as admin:
        status = admin.status()
    assert {key.name for key in status.keys if key.unhealthy == (1,)} == failed
    (name,) = failed
    assert any(f"{name}.v1: failed its self-test" in finding for finding in status.findings)
    assert ", failed its self-test)" in command.ok("status").decode()
    assert serves(command)
    first.restore()
    until(lambda: code_of(command, name) == "OK")
    until(lambda: len(changes(command)) == len(before) + 2)
    assert changes(command)[-2:] == [(name, "KEY_UNHEALTHY"), (name, "OK")]
    assert second.path.exists()


def test_an_agent_none_of_whose_keys_can_serve_says_so(command: Command) -> None:
    files = private_keys(command)
    values = [file.value(store.CKA_VALUE) for file in files]
    for file, value in zip(files, values[1:] + values[:1], strict=True):
        file.replace(store.CKA_VALUE, value)
    until(lambda: not serves(command))
    assert [code_of(command, key) for key in ("release", "other")] == ["KEY_UNHEALTHY"] * 2
    for file in files:
        file.restore()
    until(lambda: serves(command))


def test_a_token_that_is_away_is_no_failed_key(command: Command) -> None:
    before = changes(command)
    tokens = command.folder / "var/softhsm/tokens"
    away = Path(f"{tokens}.away")
    tokens.rename(away)
    try:
        until(lambda: not serves(command))
    finally:
        away.rename(tokens)
    assert changes(command) == before
