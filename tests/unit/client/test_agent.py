"""What the client sends, and what it makes of the answers."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

import keycustody
from keycustody import errors
from keycustody.client import flows
from tests.unit.client.agent_double import KEYS, AgentDouble

BOTH_DRIVERS = True

ECDSA = ec.ECDSA(hashes.SHA256())


def verify(agent: keycustody.Agent, signature: bytes, data: bytes) -> None:
    public = agent.public_key("release")
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, data, ECDSA)


def test_one_item_in_one_out(agent: keycustody.Agent) -> None:
    verify(agent, agent.sign("release", b"message"), b"message")


def test_many_items_in_one_round_trip(agent: keycustody.Agent, double: AgentDouble) -> None:
    items: list[bytes | bytearray | memoryview] = [b"a", bytearray(b"b"), memoryview(b"c")]
    for item, signature in zip(items, agent.sign("release", items), strict=True):
        verify(agent, signature, bytes(item))
    assert double.count("Sign") == 1


def test_no_items_cost_no_call(agent: keycustody.Agent, double: AgentDouble) -> None:
    assert agent.sign("release", [], algorithm="ECDSA_SHA_256") == []
    assert double.calls == []


def test_the_default_algorithm_is_asked_for_once(
    agent: keycustody.Agent, double: AgentDouble
) -> None:
    for _ in range(3):
        agent.sign("release", b"x")
    assert (double.count("GetKey"), double.count("Sign")) == (1, 3)


def test_a_large_batch_is_split(agent: keycustody.Agent, double: AgentDouble) -> None:
    assert len(agent.sign("tokens", [b"x"] * (flows.BATCH_ITEMS + 1))) == flows.BATCH_ITEMS + 1
    assert double.count("Sign") == 2
    assert len(agent.sign("tokens", [bytes(1024 * 1024)] * 5)) == 5
    assert double.count("Sign") == 4


def test_raw_and_prehashed(agent: keycustody.Agent) -> None:
    raw = agent.sign("release", sha256(b"m").digest(), prehashed=True, raw=True)
    assert len(raw) == 64
    verify(
        agent,
        encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:])),
        b"m",
    )


def test_a_failed_item_raises_or_stays_in_its_place(agent: keycustody.Agent) -> None:
    items = [b"fine", bytes(1024 * 1024 + 1)]
    first, second = agent.sign_each("release", items)
    assert isinstance(first, bytes)
    assert isinstance(second, errors.MessageTooLarge)
    with pytest.raises(errors.MessageTooLarge, match="1 MiB"):
        agent.sign("release", items)


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 3 * 1024 * 1024 + 1])
def test_files_are_hashed_here(
    agent: keycustody.Agent, double: AgentDouble, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    verify(agent, agent.sign_file("release", path), bytes(size))
    sent = double.calls[-2][1].items[0]  # the last is verify's GetKey
    assert sent.digest == sha256(bytes(size)).digest()


@pytest.mark.parametrize("name", ["tokens", "strict"])
def test_files_go_whole_where_no_digest_is_taken(
    agent: keycustody.Agent, double: AgentDouble, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"whole")
    agent.sign_file(name, path)
    assert double.calls[-1][1].items[0].message == b"whole"
    path.write_bytes(bytes(1024 * 1024 + 1))
    with pytest.raises(errors.MessageTooLarge):
        agent.sign_file(name, path)


def test_a_file_that_is_not_there(agent: keycustody.Agent, tmp_path: Path) -> None:
    with pytest.raises(errors.FileUnusable, match="No such file"):
        agent.sign_file("release", tmp_path / "absent")


def test_agree_and_rsa_decrypt(agent: keycustody.Agent, double: AgentDouble) -> None:
    peer = ec.generate_private_key(ec.SECP256R1())
    public = double.private["hpke"].public_key()
    assert agent.agree("hpke", peer.public_key()) == peer.exchange(ec.ECDH(), public)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    ciphertext = double.private["mail"].public_key().encrypt(b"secret", oaep)
    assert agent.rsa_decrypt("mail", ciphertext) == b"secret"
    with pytest.raises(errors.DecryptionFailed):
        agent.rsa_decrypt("mail", bytes(256))


def test_listing_and_status(agent: keycustody.Agent) -> None:
    listed = agent.keys()
    assert [key.name for key in listed] == sorted(KEYS)
    assert agent.key("mail").purpose == "decrypt"
    assert agent.status().uptime_seconds == 7


def test_an_agents_error_keeps_code_and_request_id(agent: keycustody.Agent) -> None:
    with pytest.raises(errors.KeyNotFound, match="'nobody'") as caught:
        agent.key("nobody")
    assert (caught.value.code, caught.value.request_id) == ("KEY_NOT_FOUND", "0" * 32)


def test_a_wrap_key_has_no_public_half(agent: keycustody.Agent) -> None:
    with pytest.raises(errors.KeyPurpose):
        agent.public_key("invoices")
    with pytest.raises(errors.KeyPurpose):
        agent.sign("invoices", b"x")


MISTAKES: dict[str, tuple[Any, type[Exception]]] = {
    "text signed": (lambda agent: agent.sign("release", "text"), errors.InvalidRequest),
    "number signed": (lambda agent: agent.sign("release", [1]), errors.InvalidRequest),
    "version 0": (lambda agent: agent.sign("release", b"", version=0), errors.InvalidRequest),
    "peer as bytes": (lambda agent: agent.agree("hpke", b"point"), errors.InvalidRequest),
    "key name": (lambda agent: agent.session("NO SUCH"), errors.InvalidRequest),
    "context": (
        lambda agent: agent.session("invoices", context={"a": "\0"}),
        errors.InvalidContext,
    ),
    "no key": (lambda agent: agent.decrypt(b"", key=None, context={}), errors.InvalidRequest),
    "no context": (lambda agent: agent.decrypt(b"", key="k", context=None), errors.InvalidContext),
    "text opened": (lambda agent: agent.decrypt("x", key="k", context={}), errors.InvalidRequest),
    "timeout": (lambda agent: keycustody.connect("/x", timeout=0), errors.InvalidRequest),
    "algorithm": (
        lambda agent: agent.sign_file("release", "x", algorithm="MD5"),
        errors.UnknownAlgorithm,
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_callers_mistake_is_told_before_anything_is_sent(
    agent: keycustody.Agent, double: AgentDouble, mistake: str
) -> None:
    call, error = MISTAKES[mistake]
    with pytest.raises(error):
        call(agent)
    assert {name for name, _ in double.calls} <= {"GetKey"}


def test_answers_are_counted(agent: keycustody.Agent, double: AgentDouble) -> None:
    def cut(response: Any) -> Any:
        del response.results[1:]
        return response

    double.tamper["Sign"] = cut
    with pytest.raises(errors.InternalError, match="1 results to 2 items"):
        agent.sign("release", [b"a", b"b"])


def test_an_answer_for_another_key_is_refused(agent: keycustody.Agent, double: AgentDouble) -> None:
    def swap(response: Any) -> Any:
        response.key.name = "other"
        return response

    double.tamper["GetKey"] = swap
    with pytest.raises(errors.InternalError, match="another key"):
        agent.key("release")


def test_prehashed_type_is_known_to_pyca() -> None:
    """`keys` reads two private attributes of pyca's; this fails when they move."""
    assert isinstance(vars(Prehashed(hashes.SHA256()))["_algorithm"], hashes.SHA256)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 7)
    assert vars(pss)["_salt_length"] == 7
