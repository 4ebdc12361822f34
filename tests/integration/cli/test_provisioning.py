"""token init, keys apply, serve: from nothing to an agent, and how each of them goes wrong."""

import signal
import stat

import pytest

from tests.integration.command import (
    FEW_KEYS,
    Command,
    on_terminal,
    prepare,
    refused,
    wait_ready,
)


@pytest.fixture
def keycustody(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command in a folder of its own, without a token; a short name, for the sockets' sake."""
    command = prepare(tmp_path_factory.mktemp("p"))
    command.config.write_text(FEW_KEYS)
    return command


@pytest.fixture
def initialised(keycustody: Command) -> Command:
    """The same, with an empty token."""
    keycustody.ok("token", "init", "--config", keycustody.config)
    return keycustody


def change(command: Command, old: str, new: str) -> None:
    """Edit the settings."""
    settings = command.config.read_text()
    assert old in settings
    command.config.write_text(settings.replace(old, new))


def test_init_makes_strong_pins_that_only_their_owner_reads(initialised: Command) -> None:
    pins = []
    for name in ("pin", "so-pin"):
        path = initialised.folder / "var" / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        pins.append(path.read_text().strip())
    assert len(set(pins)) == 2
    assert all(len(pin) >= 16 for pin in pins)


def test_init_refuses_to_erase_without_force_and_the_label(initialised: Command) -> None:
    init = ("token", "init", "--config", initialised.config)

    refused(initialised(*init), "TOKEN_INITIALISED")
    wrong = initialised(*init, "--force", "--label", "another")
    assert wrong.returncode != 0
    assert wrong.stderr.count(b"\n") == 1
    initialised.ok(*init, "--force", "--label", "keycustody-test")


def test_apply_makes_what_is_missing_once(initialised: Command) -> None:
    apply = ("keys", "apply", "--config", initialised.config)

    planned = initialised.ok(*apply, "--dry-run").decode().splitlines()
    again = initialised.ok(*apply, "--dry-run").decode().splitlines()
    done = initialised.ok(*apply).decode().splitlines()

    assert planned == again
    assert all(line.startswith("to do: ") for line in planned)
    assert [line.removeprefix("done: ") for line in done] == [
        line.removeprefix("to do: ") for line in planned
    ]
    assert initialised.ok(*apply).startswith(b"Nothing to do")


def test_nothing_works_out_of_order(keycustody: Command) -> None:
    refused(keycustody("keys", "apply", "--config", keycustody.config), "TOKEN_NOT_FOUND")
    refused(keycustody("serve", "--config", keycustody.config), "TOKEN_NOT_FOUND")
    keycustody.ok("token", "init", "--config", keycustody.config)
    refused(keycustody("serve", "--config", keycustody.config), "TOKEN_NOT_PROVISIONED")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_tells_the_sockets_and_ends_on_a_signal(initialised: Command, number: int) -> None:
    initialised.ok("keys", "apply", "--config", initialised.config)
    agent = initialised.start("serve", "--config", initialised.config)
    wait_ready(initialised, agent)

    agent.send_signal(number)
    stdout, stderr = agent.communicate(timeout=30)

    assert agent.returncode == 0, stderr.decode()
    lines = stdout.decode().splitlines()
    run = initialised.folder / "var" / "run"
    assert f"export KEYCUSTODY_SOCKET={run}/demo/agent.sock  # demo" in lines
    assert lines[-1].startswith("keycustody is ready")
    refused(initialised("keys", "list"), "AGENT_UNREACHABLE")


def test_a_wrong_pin_is_tried_once(initialised: Command) -> None:
    pin = initialised.folder / "var" / "pin"
    right = pin.read_text()
    apply = ("keys", "apply", "--config", initialised.config)
    pin.write_text("not-the-pin\n")

    refused(initialised(*apply), "PIN_INCORRECT")
    refused(initialised(*apply), "PIN_GUARDED")
    refused(initialised("serve", "--config", initialised.config), "PIN_GUARDED")

    initialised.ok("token", "clear-pin-guard", "--config", initialised.config)
    pin.write_text(right)
    initialised.ok(*apply)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_pin_that_others_may_touch_is_refused(initialised: Command, mode: int) -> None:
    (initialised.folder / "var" / "pin").chmod(mode)

    refused(initialised("keys", "apply", "--config", initialised.config), "INSECURE_PERMISSIONS")


@pytest.mark.parametrize("content", [None, "", "\n"], ids=["missing", "empty", "blank"])
def test_a_pin_that_is_not_there(initialised: Command, content: str | None) -> None:
    pin = initialised.folder / "var" / "pin"
    if content is None:
        pin.unlink()
    else:
        pin.write_text(content)

    refused(initialised("keys", "apply", "--config", initialised.config), "PIN_UNAVAILABLE")


@pytest.mark.parametrize("module", ["/nonexistent.so", "/etc/passwd", "/bin/true"])
def test_a_module_that_is_missing_or_none(keycustody: Command, module: str) -> None:
    change(keycustody, "/usr/lib/softhsm/libsofthsm2.so", module)

    refused(keycustody("token", "init", "--config", keycustody.config), "MODULE_UNUSABLE")
    (keycustody.folder / "var" / "pin").unlink(missing_ok=True)
    (keycustody.folder / "var" / "pin").touch(0o600)
    (keycustody.folder / "var" / "pin").write_text("1234567890")
    refused(keycustody("serve", "--config", keycustody.config), "MODULE_UNUSABLE")


def test_settings_tell_all_that_is_wrong_at_once(keycustody: Command) -> None:
    change(keycustody, 'algorithm = "EC_P256"', 'algorithm = "EC_P257"')
    change(keycustody, "scan_seconds = 1.0", "scan_second = 1.0")

    done = keycustody("serve", "--config", keycustody.config)

    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert len(lines) == 2
    assert all(line.startswith(f"keycustody: {keycustody.config}: ") for line in lines)
    assert all(line.endswith(" [CONFIG_INVALID]") for line in lines)


def test_a_pin_that_is_asked_for_needs_a_terminal(initialised: Command) -> None:
    change(initialised, 'pin = { file = "../var/pin" }', "pin = { prompt = true }")

    refused(initialised("keys", "apply", "--config", initialised.config), "PIN_UNAVAILABLE")


def test_a_pin_that_is_typed_is_not_shown(initialised: Command) -> None:
    pin = (initialised.folder / "var" / "pin").read_text().strip()
    change(initialised, 'pin = { file = "../var/pin" }', "pin = { prompt = true }")

    shown = on_terminal(initialised, "keys", "apply", "--config", initialised.config, typed=pin)

    assert b"done: " in shown
    assert pin.encode() not in shown
