"""No operation without a principal, a decision and a record."""

import hashlib
import os
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import keycustody as client
from keycustody import KeycustodyError
from keycustody.custody.audit import verify
from keycustody.errors import KeyNotFound, KeyPurpose, PermissionDenied
from tests.integration.command import Command

Act = Callable[[client.Agent], object]

ACTS: dict[str, tuple[str, str, Act]] = {
    "list": ("read", "", lambda agent: agent.keys()),
    "get": ("read", "release", lambda agent: agent.key("release")),
    "sign": ("sign", "tokens", lambda agent: agent.sign("tokens", b"x", algorithm="ED25519")),
    "agree": (
        "agree",
        "hpke",
        lambda agent: agent.agree("hpke", ec.generate_private_key(ec.SECP256R1()).public_key()),
    ),
    "generate": ("generate", "invoices", lambda agent: agent.session("invoices").close()),
}


@pytest.mark.parametrize("act", ACTS)
def test_each_request_leaves_one_record(keycustody: Command, agent: client.Agent, act: str) -> None:
    operation, key, work = ACTS[act]
    before = len(keycustody.records())
    work(agent)
    added = keycustody.records()[before:]
    # The client may ask once more, for what it needs to know of the key.
    served = [record for record in added if record["operation"] == operation]
    assert len(served) == 1
    assert (served[0]["key"], served[0]["principal"], served[0]["via"]) == (key, "demo", "socket")
    assert served[0]["result"] == "OK"
    assert len(served[0]["rules"]) == 64


def test_a_batch_is_one_record_with_each_items_digest(
    keycustody: Command, agent: client.Agent
) -> None:
    messages = [os.urandom(20) for _ in range(100)]
    agent.sign("release", messages)
    record = keycustody.records()[-1]
    assert record["items"] == [f"{hashlib.sha256(m).hexdigest()}:OK" for m in messages]
    assert (record["algorithm"], record["version"], record["grant"]) == (
        "ECDSA_SHA_256",
        1,
        "demo-all",
    )


def test_a_failed_item_is_recorded_as_such(keycustody: Command, agent: client.Agent) -> None:
    results = agent.sign_each("release", [bytes(32), bytes(31)], prehashed=True)
    assert isinstance(results[0], bytes)
    assert isinstance(results[1], KeycustodyError)
    assert [item.partition(":")[2] for item in keycustody.records()[-1]["items"]] == [
        "OK",
        "DIGEST_LENGTH",
    ]


def test_a_context_is_recorded(keycustody: Command, agent: client.Agent) -> None:
    context = {"tenant": "42", "a": "ü"}
    with agent.session("invoices", context=context) as session:
        box = session.encrypt(b"x")
    assert keycustody.records()[-1]["context"] == context
    agent.decrypt(box, key="invoices", context=context)
    record = keycustody.records()[-1]
    assert (record["operation"], record["context"]) == ("unwrap", context)


DENIED: dict[str, Act] = {
    "a key": lambda agent: agent.key("release"),
    "a key that is not there": lambda agent: agent.key("no-such-key"),
    "a session": lambda agent: agent.session("invoices"),
    "a signature": lambda agent: agent.sign("release", b"x", algorithm="ECDSA_SHA_256"),
}


@pytest.mark.parametrize("what", DENIED)
def test_a_stranger_is_denied_alike_and_on_record(keycustody: Command, what: str) -> None:
    with keycustody.connect("stranger") as stranger:
        with pytest.raises(PermissionDenied) as caught:
            DENIED[what](stranger)
    record = keycustody.records()[-1]
    assert (record["principal"], record["result"]) == ("stranger", "PERMISSION_DENIED")
    assert record["request"] == caught.value.request_id
    assert record["grant"] == ""


def test_a_stranger_sees_no_keys(keycustody: Command) -> None:
    with keycustody.connect("stranger") as stranger:
        assert stranger.keys() == []


@pytest.mark.parametrize(
    "name",
    [
        "keycustody:delivery",
        "keycustody:audit",
        "keycustody:sentinel",
        "*",
        "../release",
        "Release",
        "",
    ],
)
def test_reserved_and_odd_names_reach_nothing(agent: client.Agent, name: str) -> None:
    with pytest.raises(KeycustodyError) as caught:
        agent.sign(name, b"x", algorithm="ECDSA_SHA_256")
    assert caught.value.code == "INVALID_REQUEST"


def test_a_granted_operation_of_another_purpose_is_refused(agent: client.Agent) -> None:
    with pytest.raises(KeyPurpose):
        agent.session("release")


def test_a_version_that_is_not_there(agent: client.Agent) -> None:
    with pytest.raises(KeyNotFound):
        agent.sign("release", b"x", algorithm="ECDSA_SHA_256", version=9)


def test_the_chain_is_whole_while_the_agent_writes_it(keycustody: Command) -> None:
    assert verify(keycustody.folder / "var" / "state").records == len(keycustody.records())
