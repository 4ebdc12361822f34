"""The tour of docs/client.md, and what only a real agent can show, through the client."""

from pathlib import Path

import pytest

import keycustody
from keycustody.errors import KeyNotFound, MessageTooLarge, UnexpectedContext, WrappedKeyRejected
from keycustody.formats import envelope
from tests.unit.client.test_documentation import PAGE, run_blocks

MIB = 1024 * 1024


def test_the_tour_runs(
    agent: keycustody.Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYCUSTODY_SOCKET", agent.socket)
    assert run_blocks(PAGE) > 10


def test_the_page_about_rewrap_runs(
    agent: keycustody.Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent.session("invoices") as session:
        (tmp_path / "one.kc").write_bytes(session.encrypt(b"x"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYCUSTODY_SOCKET", agent.socket)
    assert run_blocks(PAGE.with_name("rewrap.md")) == 1


def test_a_thousand_and_more_in_few_round_trips(agent: keycustody.Agent) -> None:
    signatures = agent.sign("tokens", [str(number).encode() for number in range(1100)])
    assert len(set(signatures)) == 1100


def test_a_message_over_the_limit(agent: keycustody.Agent) -> None:
    assert agent.sign("tokens", bytes(MIB))
    with pytest.raises(MessageTooLarge):
        agent.sign("tokens", bytes(MIB + 1))


def test_a_large_message_is_hashed_here(agent: keycustody.Agent, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(20 * MIB))
    assert agent.sign_file("release", tmp_path / "large")


def test_a_large_file_comes_back(agent: keycustody.Agent, tmp_path: Path) -> None:
    plain, sealed, back = tmp_path / "plain", tmp_path / "sealed", tmp_path / "back"
    plain.write_bytes(bytes(range(256)) * (20 * MIB // 256))
    with agent.session("invoices", context={"tenant": "42"}) as session:
        session.encrypt_file(plain, sealed)
    with pytest.raises(UnexpectedContext):
        agent.decrypt_file(sealed, back, key="invoices", context={"tenant": "43"})
    assert not back.exists()
    agent.decrypt_file(sealed, back, key="invoices", context={"tenant": "42"})
    assert back.read_bytes() == plain.read_bytes()


def test_a_slot_of_another_context_unwraps_nothing(agent: keycustody.Agent) -> None:
    one, two = (
        agent.session("invoices", context={"tenant": tenant}).encrypt(b"x") for tenant in "12"
    )
    header, start = envelope.parse(one)
    other, _ = envelope.parse(two)
    moved = header.with_slot(other.version, other.wrapped_key).encode() + one[start:]
    with pytest.raises(WrappedKeyRejected):
        agent.decrypt(moved, key="invoices", context={"tenant": "1"})


def test_a_version_that_is_not(agent: keycustody.Agent) -> None:
    with pytest.raises(KeyNotFound):
        agent.public_key("release", version=99)
