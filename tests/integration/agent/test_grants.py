"""Grants under attack: on a running agent, each condition; and what was used, after a kill -9."""

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import keycustody as client
from keycustody.custody.clock import stamp
from keycustody.errors import BudgetExceeded, PermissionDenied, RateExceeded
from keycustody.formats.suites import SUITE_1, WRAPPED_BYTES
from keycustody.v1.session_key_service_pb2 import (
    UnwrapSessionKeysRequest,
    UnwrapSessionKeysResponse,
)
from tests.integration.agent.raw import channel, send
from tests.integration.command import FEW_KEYS, Command, prepare, running, set_ahead


def soon(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


def grants() -> str:
    return f"""
[principals.billing]
[principals.other]
[keys.invoices]
purpose = "wrap"
[[grants]]
name = "expired"
principals = ["other"]
keys = ["release"]
operations = ["read", "sign"]
not_after = {soon(minutes=-1)}
[[grants]]
name = "not-yet"
principals = ["other"]
keys = ["release"]
operations = ["read", "sign"]
not_before = {soon(days=1)}
[[grants]]
name = "next-half-hour"
principals = ["billing"]
keys = ["release"]
operations = ["read", "sign"]
not_after = {soon(minutes=30)}
rate = {{ per_second = 0.001, burst = 5 }}
[[grants]]
name = "own-tenant"
principals = ["billing"]
keys = ["invoices"]
operations = ["generate", "unwrap", "rewrap"]
context = {{ tenant = "42", owner = "{{principal}}" }}
budgets = [{{ session_keys = 3, seconds = 3600 }}, {{ session_keys = 5, seconds = 86400 }}]
"""


OURS = {"tenant": "42", "owner": "billing"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Command:
    command = prepare(tmp_path_factory.mktemp("grants"))
    command.config.write_text(FEW_KEYS + grants())
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    return command


@pytest.fixture(scope="module")
def boxes(own: Command) -> Iterator[list[bytes]]:
    """Messages under a session key each, and an agent that runs."""
    with running(own):
        made = []
        with own.connect("billing") as agent:
            for number in range(5):
                with agent.session("invoices", context=OURS) as session:
                    made.append(session.encrypt(f"{number}".encode()))
        yield made


def read(agent: client.Agent, box: bytes) -> bytes:
    return agent.decrypt(box, key="invoices", context=OURS)


def sign_times(agent: client.Agent, count: int) -> None:
    for _ in range(count):
        agent.sign("release", b"x", algorithm="ECDSA_SHA_256")


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"tenant": "42"},
        {**OURS, "tenant": "43"},
        {**OURS, "tenant": "42\u200b"},
        {**OURS, "owner": "other"},
        {**OURS, "owner": "{principal}"},
    ],
)
def test_a_context_that_differs_by_a_byte_gets_no_session_key(
    own: Command, boxes: list[bytes], context: dict[str, str]
) -> None:
    with own.connect("billing") as agent, pytest.raises(PermissionDenied) as caught:
        agent.session("invoices", context=context)
    assert "42" not in caught.value.message
    record = own.records()[-1]
    assert (record["grant"], record["result"]) == ("", "PERMISSION_DENIED")
    assert "context" in record["detail"]


@pytest.mark.parametrize("principal", ["other", "demo"])
def test_the_socket_of_another_principal_is_another_principal(
    own: Command, boxes: list[bytes], principal: str
) -> None:
    with own.connect(principal) as agent, pytest.raises(PermissionDenied):
        read(agent, boxes[0])


def test_grants_that_expired_or_are_not_valid_yet_allow_nothing(
    own: Command, boxes: list[bytes]
) -> None:
    with own.connect("other") as agent:
        assert agent.keys() == []
        with pytest.raises(PermissionDenied):
            agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
    detail = own.records()[-1]["detail"]
    assert "grant expired: it has expired" in detail
    assert "grant not-yet: it is not valid yet" in detail


def test_a_rate_counts_items(own: Command, boxes: list[bytes]) -> None:
    with own.connect("billing") as agent:
        with pytest.raises(RateExceeded, match="ask for less"):
            agent.sign("release", [b"x"] * 6, algorithm="ECDSA_SHA_256")
        agent.sign("release", [b"x"] * 3, algorithm="ECDSA_SHA_256")
        with pytest.raises(RateExceeded, match="try again in") as caught:
            agent.sign("release", [b"x"] * 3, algorithm="ECDSA_SHA_256")
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 500


def test_a_budget_is_kept_across_kill_9_and_says_so(own: Command, boxes: list[bytes]) -> None:
    with own.connect("billing") as agent:
        for box in (boxes[0], boxes[1], boxes[0], boxes[2]):
            read(agent, box)
        with pytest.raises(BudgetExceeded, match="try again in"):
            read(agent, boxes[3])
        with pytest.raises(RateExceeded):
            sign_times(agent, 6)
    # Another client has no lease to go by, and those of before cost nothing.
    with own.connect("billing") as agent:
        read(agent, boxes[1])
    asked = ["--principal", "billing", "--operation", "unwrap", "--key", "invoices"]
    pairs = [f"--context={name}={value}" for name, value in OURS.items()]
    told = own("explain", *asked, *pairs, "--config", own.config, "--json")
    answer = json.loads(told.stdout)["grants"][4]
    assert [limit["used"] for limit in answer["limits"]] == [3, 3]
    assert (told.returncode, answer["allows"], answer["condition"]) == (1, False, "budget")

    os.kill(own.agent_pid(), 9)
    with running(own), own.connect("billing") as agent:
        with pytest.raises(BudgetExceeded):
            read(agent, boxes[3])
        assert read(agent, boxes[2]) == b"2"
        with pytest.raises(RateExceeded):
            agent.sign("release", b"x", algorithm="ECDSA_SHA_256")


def test_what_fails_costs_no_budget(own: Command) -> None:
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    request = UnwrapSessionKeysRequest(
        key="invoices",
        version=1,
        suite=SUITE_1,
        context={**OURS, "tries": ""},
        wrapped_keys=[os.urandom(WRAPPED_BYTES), os.urandom(WRAPPED_BYTES), b"short"],
        client_point=point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
    )
    method = "/keycustody.v1.SessionKeyService/UnwrapSessionKeys"
    own.config.write_text(FEW_KEYS + grants().replace("session_keys = 3", "session_keys = 4"))
    with running(own), channel(own.socket("billing")) as opened:
        for _ in range(3):
            # 3 were used by the test before, so one is left; three at once are refused,
            with pytest.raises(grpc.RpcError):
                send(opened, method, request.SerializeToString())
            # and one by one they fail, and leave room for the next.
            for wrapped in request.wrapped_keys:
                one = UnwrapSessionKeysRequest()
                one.CopyFrom(request)
                one.ClearField("wrapped_keys")
                one.wrapped_keys.append(wrapped)
                answer = send(opened, method, one.SerializeToString())
                (result,) = UnwrapSessionKeysResponse.FromString(answer).results
                assert result.error.code == "WRAPPED_KEY_REJECTED"
        with own.connect("billing") as agent:
            with agent.session("invoices", context=OURS) as session:
                box = session.encrypt(b"x")
            assert read(agent, box) == b"x"


def test_a_clock_that_is_set_back_revives_no_grant(own: Command) -> None:
    """As the agent sees it: its journal ends in an hour, its system's clock says now."""
    set_ahead(own, hours=1)
    with running(own), own.connect("billing") as agent, own.connect("admin") as admin:
        with pytest.raises(PermissionDenied):
            agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
        record = own.records()[-1]
        assert "next-half-hour: it has expired" in record["detail"]
        assert record["time"] > stamp(datetime.now(UTC).timestamp() + 3000)
        assert any(re.search("clock is 3[56].. s behind", f) for f in admin.status().findings)
