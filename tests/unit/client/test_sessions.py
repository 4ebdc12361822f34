"""Sessions and decryption: what is bound to what, what is asked of the agent and how often."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor

import keycustody
from keycustody import errors
from keycustody.formats import envelope
from tests.unit.client.agent_double import AgentDouble
from tests.unit.client.conftest import Connect

BOTH_DRIVERS = True

ANY = keycustody.ANY
CONTEXT = {"tenant": "42"}


@pytest.fixture
def box(agent: keycustody.Agent) -> bytes:
    with agent.session("invoices", context=CONTEXT) as session:
        return session.encrypt(b"secret", associated_data=b"row 7")


def opened(agent: keycustody.Agent, box: bytes, **changes: Any) -> bytes:
    required = {"key": "invoices", "context": CONTEXT, "associated_data": b"row 7"} | changes
    return agent.decrypt(box, **required)


def test_round_trip(agent: keycustody.Agent, box: bytes) -> None:
    assert opened(agent, box) == b"secret"
    assert opened(agent, box, key=ANY, context=ANY) == b"secret"
    assert opened(agent, memoryview(box)) == b"secret"  # type: ignore[arg-type]


EXPECTATIONS: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "key": ({"key": "receipts"}, errors.UnexpectedKey),
    "context value": ({"context": {"tenant": "43"}}, errors.UnexpectedContext),
    "no context": ({"context": {}}, errors.UnexpectedContext),
    "more context": ({"context": CONTEXT | {"a": ""}}, errors.UnexpectedContext),
}


@pytest.mark.parametrize("what", EXPECTATIONS)
def test_the_header_is_compared_before_the_agent_is_asked(
    agent: keycustody.Agent, double: AgentDouble, box: bytes, what: str
) -> None:
    changes, error = EXPECTATIONS[what]
    with pytest.raises(error):
        opened(agent, box, **changes)
    assert double.count("UnwrapSessionKeys") == 0


def test_wrong_associated_data(agent: keycustody.Agent, box: bytes) -> None:
    with pytest.raises(errors.DecryptionFailed):
        opened(agent, box, associated_data=b"row 8")


def test_no_bit_of_an_envelope_can_be_flipped(agent: keycustody.Agent, box: bytes) -> None:
    for index in range(len(box)):
        edited = bytearray(box)
        edited[index] ^= 1
        with pytest.raises(errors.KeycustodyError) as caught:
            opened(agent, bytes(edited))
        assert caught.value.code in {
            "MALFORMED_ENVELOPE",
            "TRUNCATED_ENVELOPE",
            "UNEXPECTED_KEY",
            "UNEXPECTED_CONTEXT",
            "WRAPPED_KEY_REJECTED",
            "DECRYPTION_FAILED",
        }


def test_no_prefix_and_no_extension_opens(agent: keycustody.Agent, box: bytes) -> None:
    for end in range(len(box)):
        with pytest.raises((errors.MalformedEnvelope, errors.DecryptionFailed)):
            opened(agent, box[:end])
    with pytest.raises(errors.DecryptionFailed):
        opened(agent, box + b"\0")


def test_a_body_is_plain_cobblestone(
    agent: keycustody.Agent, double: AgentDouble, box: bytes
) -> None:
    from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

    header, start = envelope.parse(box)
    key = aes_key_unwrap(double.wrapping, header.wrapped_key[:40])
    plain = Cobblestone256Decryptor(key, envelope.body_context(header, b"row 7"))
    assert plain.update(box[start:]) + plain.finalize() == b"secret"


def test_each_wrapped_key_is_unwrapped_once(agent: keycustody.Agent, double: AgentDouble) -> None:
    with agent.session("invoices") as one, agent.session("invoices") as two:
        boxes = [session.encrypt(b"x") for _ in range(5) for session in (one, two)]
    for box in boxes:
        assert agent.decrypt(box, key="invoices", context={}) == b"x"
    assert (double.count("GenerateSessionKey"), double.count("UnwrapSessionKeys")) == (2, 2)


def test_threads_that_miss_the_same_key_ask_once(
    agent: keycustody.Agent, double: AgentDouble, box: bytes
) -> None:
    barrier = threading.Barrier(12)
    results: list[bytes] = []

    def work() -> None:
        barrier.wait()
        results.append(opened(agent, box))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (results, double.count("UnwrapSessionKeys")) == ([b"secret"] * 12, 1)


def test_a_sessions_own_key_is_not_there_for_decryption(
    agent: keycustody.Agent, double: AgentDouble
) -> None:
    with agent.session("invoices") as session:
        box = session.encrypt(b"x")
        agent.decrypt(box, key="invoices", context={})
    assert double.count("UnwrapSessionKeys") == 1


def test_a_used_up_lease_is_renewed(agent: keycustody.Agent, double: AgentDouble) -> None:
    double.lease = (3600, 3, 2**40)
    with agent.session("invoices", context=CONTEXT) as session:
        boxes = [session.encrypt(b"x") for _ in range(7)]
    assert double.count("GenerateSessionKey") == 3
    assert len({envelope.parse(box)[0].wrapped_key for box in boxes}) == 3
    assert all(opened(agent, box, associated_data=b"") == b"x" for box in boxes)


def test_many_threads_encrypt_within_their_lease(
    agent: keycustody.Agent, double: AgentDouble
) -> None:
    double.lease = (3600, 50, 2**40)
    boxes: list[bytes] = []
    with agent.session("invoices") as session:

        def work() -> None:
            boxes.extend([session.encrypt(b"x") for _ in range(100)])

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    by_key: dict[bytes, int] = {}
    for box in boxes:
        wrapped = envelope.parse(box)[0].wrapped_key
        by_key[wrapped] = by_key.get(wrapped, 0) + 1
    assert len(boxes) == 800
    # One use beyond a lease is possible: by who fetched a key that others used up before it.
    assert max(by_key.values()) <= 51


def test_a_closed_session(agent: keycustody.Agent, tmp_path: Path) -> None:
    session = agent.session("invoices", context=CONTEXT)
    assert repr(session) == "<keycustody.Session key='invoices' context={'tenant': '42'} open>"
    session.close()
    session.close()
    with pytest.raises(errors.SessionEnded):
        session.encrypt(b"x")
    (tmp_path / "in").write_bytes(b"x")
    with pytest.raises(errors.SessionEnded):
        session.encrypt_file(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_session_that_may_not_be_opened(agent: keycustody.Agent) -> None:
    with pytest.raises(errors.KeyPurpose):
        agent.session("release")


def _splice(double: AgentDouble, method: str) -> None:
    """Answer every request with the first one's answer."""
    first: list[Any] = []

    def tamper(response: Any) -> Any:
        first.append(response)
        return first[0]

    double.tamper[method] = tamper


def test_a_spliced_session_key_is_refused(agent: keycustody.Agent, double: AgentDouble) -> None:
    _splice(double, "GenerateSessionKey")
    agent.session("invoices", context=CONTEXT)
    with pytest.raises(errors.DeliveryRejected):
        agent.session("invoices", context=CONTEXT)


def test_a_spliced_unwrap_is_refused(agent: keycustody.Agent, double: AgentDouble) -> None:
    contexts: list[Mapping[str, str]] = [{"a": "1"}, {"a": "2"}]
    boxes = [agent.session("invoices", context=context).encrypt(b"x") for context in contexts]
    _splice(double, "UnwrapSessionKeys")
    agent.decrypt(boxes[0], key="invoices", context=contexts[0])
    with pytest.raises(errors.DeliveryRejected):
        agent.decrypt(boxes[1], key="invoices", context=contexts[1])


def _edit(what: str, response: Any) -> Any:
    match what:
        case "version":
            response.version = 2
        case "zero version":
            response.version = 0
        case "wrapped key":
            response.wrapped_key = bytes(72)
        case "short wrapped key":
            response.wrapped_key = bytes(40)
        case "sealed":
            response.delivered.sealed = bytes(40)
        case "point":
            response.delivered.delivery_point = b"\4" + bytes(64)
        case "nothing":
            response.ClearField("delivered")
        case "plain":
            response.delivered.plain = bytes(32)
    return response


@pytest.mark.parametrize(
    "what",
    [
        "version", "zero version", "wrapped key", "short wrapped key", "sealed", "point", "nothing",
        "plain",
    ],
)  # fmt: skip
def test_an_edited_delivery_is_refused(
    agent: keycustody.Agent, double: AgentDouble, what: str
) -> None:
    double.tamper["GenerateSessionKey"] = lambda response: _edit(what, response)
    with pytest.raises(errors.DeliveryRejected):
        agent.session("invoices", context=CONTEXT)


def test_plain_delivery_only_by_consent(
    agent: keycustody.Agent, double: AgentDouble, socket: Path, connect: Connect
) -> None:
    double.plain = True
    with pytest.raises(errors.DeliveryRejected, match="accept_plain"):
        agent.session("invoices")
    with connect(socket, accept_plain=True) as consenting:
        box = consenting.session("invoices").encrypt(b"x")
        assert consenting.decrypt(box, key="invoices", context={}) == b"x"
        double.tamper["GenerateSessionKey"] = lambda response: _edit("zero version", response)
        with pytest.raises(errors.DeliveryRejected):
            consenting.session("invoices")


def test_nothing_shows_a_key(agent: keycustody.Agent, box: bytes) -> None:
    opened(agent, box)
    (opener,) = (entry.value for entry in agent._operations._unwrapped._entries.values())
    assert "value" not in repr(opener)
    assert repr(opener.key.value) not in repr(opener)
