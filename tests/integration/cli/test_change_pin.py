"""token change-pin: the PIN that the token has is in a file at every moment, and tried once."""

import json
import stat
from pathlib import Path

import pytest

from tests.integration.command import FEW_KEYS, Command, prepare, refused, running

Change = tuple[str | Path, ...]


@pytest.fixture
def keycustody(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command in a folder of its own, with a token that has its key."""
    command = prepare(tmp_path_factory.mktemp("c"))
    command.config.write_text(FEW_KEYS)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    return command


@pytest.fixture
def change(keycustody: Command) -> Change:
    """The arguments of the command."""
    return ("token", "change-pin", "--config", keycustody.config)


def pin(command: Command) -> Path:
    """The PIN file."""
    return command.folder / "var" / "pin"


def waiting(command: Command) -> Path:
    """Where the new PIN is until the token has it."""
    return command.folder / "var" / "pin.new"


def signs(command: Command) -> None:
    """Assert that an agent starts with the PIN that the file holds, and signs."""
    with running(command), command.connect("demo") as agent:
        assert agent.sign("release", b"data")


def test_the_file_holds_the_new_pin_and_the_token_takes_it(
    keycustody: Command, change: Change
) -> None:
    old = pin(keycustody).read_text()

    said = keycustody.ok(*change).decode()

    new = pin(keycustody).read_text()
    assert new != old
    assert stat.S_IMODE(pin(keycustody).stat().st_mode) == 0o600
    assert not waiting(keycustody).exists()
    signs(keycustody)
    journal = json.dumps(keycustody.records())
    assert [
        record["detail"].partition(":")[0]
        for record in keycustody.records()
        if record["operation"] == "change-pin"
    ] == ["intent", "done"]
    for told in (said, journal):
        assert new.strip() not in told
        assert old.strip() not in told
    # The old one opens nothing any more.
    pin(keycustody).write_text(old)
    refused(keycustody("keys", "apply", "--config", keycustody.config), "PIN_INCORRECT")


def test_a_pin_of_ones_own(keycustody: Command, change: Change) -> None:
    waiting(keycustody).touch(0o600)
    waiting(keycustody).write_text("chosen-by-an-operator\n")
    keycustody.ok(*change)
    assert pin(keycustody).read_text() == "chosen-by-an-operator\n"
    signs(keycustody)


def test_a_run_that_died_after_the_token_changed_is_finished_by_the_next(
    keycustody: Command, change: Change
) -> None:
    old = pin(keycustody).read_text()
    keycustody.ok(*change)
    # As it is between C_SetPIN and the rename.
    pin(keycustody).rename(waiting(keycustody))
    pin(keycustody).touch(0o600)
    pin(keycustody).write_text(old)
    refused(keycustody("keys", "apply", "--config", keycustody.config), "PIN_INCORRECT")

    keycustody.ok(*change)

    assert not waiting(keycustody).exists()
    signs(keycustody)


def test_what_the_token_does_not_take_changes_nothing(keycustody: Command, change: Change) -> None:
    old = pin(keycustody).read_text()
    waiting(keycustody).touch(0o600)
    waiting(keycustody).write_text("abc\n")  # SoftHSM wants four characters
    refused(keycustody(*change), "INVALID_REQUEST")
    assert pin(keycustody).read_text() == old
    waiting(keycustody).unlink()
    signs(keycustody)


def test_with_a_wrong_pin_nothing_is_left_behind(keycustody: Command, change: Change) -> None:
    pin(keycustody).write_text("not-the-pin\n")
    refused(keycustody(*change), "PIN_INCORRECT")
    refused(keycustody(*change), "PIN_GUARDED")
    assert not waiting(keycustody).exists()


def test_not_beside_an_agent(keycustody: Command, change: Change) -> None:
    with running(keycustody):
        refused(keycustody(*change), "STATE_LOCKED")


def test_only_a_pin_that_is_in_a_file(keycustody: Command, change: Change) -> None:
    text = keycustody.config.read_text()
    keycustody.config.write_text(
        text.replace('pin = { file = "../var/pin" }', "pin = { prompt = true }", 1)
    )
    refused(keycustody(*change), "INVALID_REQUEST")
