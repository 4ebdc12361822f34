"""What others may touch keeps the agent from starting; and what a running one has closed."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import keycustody as client
from tests.integration.agent.caged import CANNOT
from tests.integration.command import FEW_KEYS, PROJECT, Command, refused

NOBODY = 65534
_CAGE = Path(__file__).with_name("caged.py")

Plant = Callable[[Path], object]


def mode(name: str, bits: int) -> Plant:
    return lambda folder: (folder / name).chmod(bits)


def setting(old: str, new: str) -> Plant:
    def plant(folder: Path) -> None:
        config = folder / "hsm_config" / "softhsm.toml"
        text = config.read_text()
        assert old in text
        config.write_text(text.replace(old, new))

    return plant


def link(name: str, target: str) -> Plant:
    return lambda folder: (folder / name).symlink_to(folder / target)


def owner(name: str) -> Plant:
    return lambda folder: os.chown(folder / name, NOBODY, NOBODY)


def both(*plants: Plant) -> Plant:
    return lambda folder: [plant(folder) for plant in plants]


#: What is wrong, and what the refusal says to do.
OPEN: dict[str, tuple[Plant, str]] = {
    "settings": (mode("hsm_config/softhsm.toml", 0o646), "run `chmod o-w`"),
    "settings' folder": (mode("hsm_config", 0o757), "run `chmod o-w`"),
    "policy": (
        both(
            lambda folder: shutil.copy(
                PROJECT / "hsm_config" / "crypto_policy.toml", folder / "policy.toml"
            ),
            mode("policy.toml", 0o666),
            setting("[agent]", 'policy = "../policy.toml"\n[agent]'),
        ),
        "run `chmod o-w`",
    ),
    "PIN": (mode("var/pin", 0o640), "run `chmod 600`"),
    "PIN for others": (mode("var/pin", 0o604), "run `chmod 600`"),
    "SO PIN": (mode("var/so-pin", 0o640), "run `chmod 600`"),
    "PIN's folder": (mode("var", 0o757), "run `chmod go-w`"),
    "state folder": (mode("var/state", 0o750), "run `chmod 700`"),
    "state folder for others": (mode("var/state", 0o701), "run `chmod 700`"),
    "module": (mode("module.so", 0o646), "replace the module"),
    "module's folder": (
        both(
            lambda folder: (folder / "open").mkdir(),
            mode("open", 0o757),
            lambda folder: (folder / "module.so").rename(folder / "open" / "module.so"),
            setting("../module.so", "../open/module.so"),
        ),
        "replace the module",
    ),
    "the folder that a link to the module leads to": (
        both(
            lambda folder: (folder / "open").mkdir(),
            mode("open", 0o757),
            lambda folder: (folder / "module.so").rename(folder / "open" / "module.so"),
            link("module.so", "open/module.so"),
        ),
        "replace the module",
    ),
}
#: The same, for whom only root can make it so.
OWNED: dict[str, tuple[Plant, str]] = {
    "module of another user": (owner("module.so"), "have root own it"),
    "state folder of another user": (owner("var/state"), "make it yours"),
    "PIN folder of another group": (
        both(lambda folder: os.chown(folder / "var", 0, NOBODY), mode("var", 0o775)),
        "run `chmod go-w`",
    ),
}


@pytest.fixture
def closed(tmp_path: Path) -> Command:
    """Settings, and all that they name, as closed as they should be; there is no token."""
    tmp_path.chmod(0o755)
    for name, bits in (("hsm_config", 0o755), ("var", 0o755), ("var/state", 0o700)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(bits)
    for name, bits in (("var/pin", 0o600), ("var/so-pin", 0o600), ("module.so", 0o644)):
        (tmp_path / name).write_text("123456\n")
        (tmp_path / name).chmod(bits)
    command = Command(tmp_path)
    command.config.write_text(FEW_KEYS.replace("/usr/lib/softhsm/libsofthsm2.so", "../module.so"))
    command.config.chmod(0o644)
    return command


def test_what_is_closed_is_not_refused_for_that(closed: Command) -> None:
    # It comes as far as the module, which is none.
    assert b"[MODULE_UNUSABLE]" in closed("serve", "--config", closed.config).stderr


@pytest.mark.slow
@pytest.mark.parametrize("what", OPEN)
def test_an_agent_does_not_start_with_what_is_open_to_others(closed: Command, what: str) -> None:
    plant, advice = OPEN[what]
    plant(closed.folder)
    done = closed("serve", "--config", closed.config)
    refused(done, "INSECURE_PERMISSIONS")
    assert advice in done.stderr.decode()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("what", OWNED)
def test_nor_with_what_belongs_to_others(closed: Command, what: str) -> None:
    plant, advice = OWNED[what]
    plant(closed.folder)
    done = closed("serve", "--config", closed.config)
    refused(done, "INSECURE_PERMISSIONS")
    assert advice in done.stderr.decode()


@pytest.mark.parametrize("command", [("keys", "apply"), ("token", "init"), ("token", "change-pin")])
def test_nor_does_a_command_that_uses_the_token(closed: Command, command: tuple[str, str]) -> None:
    closed.config.chmod(0o646)
    refused(closed(*command, "--config", closed.config), "INSECURE_PERMISSIONS")


#: Sockets are opened last, with a token that answers: another state folder, and these beside it.
SOCKETS: dict[str, tuple[Plant, str]] = {
    "the sockets' folder": (mode("run", 0o757), "INSECURE_PERMISSIONS"),
    "the sockets' folder, to a group": (mode("run", 0o775), "INSECURE_PERMISSIONS"),
    "a link in place of a socket's folder": (link("run/admin", "."), "SOCKET_UNUSABLE"),
    "a file in place of a socket's folder": (
        lambda folder: (folder / "run" / "admin").touch(),
        "SOCKET_UNUSABLE",
    ),
    "a link in place of a lock": (
        both(
            lambda folder: (folder / "run" / "admin").mkdir(),
            link("run/admin/lock", "nothing"),
        ),
        "INSECURE_PERMISSIONS",
    ),
}


def beside(command: Command, name: str, folder: Path) -> Path:
    """Settings of another agent on the same token, with state and sockets in that folder."""
    text = command.config.read_text()
    config = command.config.with_name(name)
    config.write_text(
        text.replace('"../var/state"', f'"{folder}/state"').replace(
            '"../var/run"', f'"{folder}/run"'
        )
    )
    return config


@pytest.mark.slow
@pytest.mark.parametrize("what", SOCKETS)
def test_nor_with_sockets_that_others_could_replace(
    keycustody: Command, tmp_path: Path, what: str
) -> None:
    plant, code = SOCKETS[what]
    (tmp_path / "run").mkdir(mode=0o755)
    plant(tmp_path)
    other = beside(keycustody, "sockets.toml", tmp_path)
    done = keycustody("serve", "--config", other)
    assert done.stderr.endswith(f" [{code}]\n".encode()), done.stderr
    assert done.returncode == 1


def test_a_running_agent_and_its_workers_are_closed(keycustody: Command) -> None:
    agent = psutil.Process(keycustody.agent_pid())
    for process in (agent, *agent.children()):
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Max core file size        0                    0" in (
            Path(f"/proc/{process.pid}/limits").read_text()
        )
        if os.geteuid() != 0:
            # Not dumpable: what it has in /proc is root's, also for its own user.
            assert Path(f"/proc/{process.pid}/fd").stat().st_uid == 0


def test_what_it_writes_is_its_own(keycustody: Command) -> None:
    state = keycustody.folder / "var" / "state"
    for path in (state, *state.rglob("*")):
        assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path
    # The umask lets nobody in; the sockets' folder is for everybody to pass, all the same.
    assert stat.S_IMODE((keycustody.folder / "var" / "run").stat().st_mode) == 0o755


@pytest.mark.slow
def test_an_agent_works_where_the_unit_lets_it(keycustody: Command, tmp_path: Path) -> None:
    config = beside(keycustody, "caged.toml", tmp_path)
    with subprocess.Popen(
        [
            sys.executable,
            _CAGE,
            sys.executable,
            "-m",
            "keycustody.cli",
            "serve",
            "--config",
            config,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | keycustody.environment,
    ) as agent:
        assert agent.stdout is not None
        ready = any(b"is ready" in line for line in agent.stdout)
        if not ready and agent.wait() == CANNOT:
            pytest.skip("this kernel does not know PR_SET_MDWE or seccomp")
        try:
            assert ready
            with client.connect(socket=tmp_path / "run" / "demo" / "agent.sock") as connected:
                connected.sign("release", b"x")
                with connected.session("invoices", context={"a": "b"}) as session:
                    connected.decrypt(session.encrypt(b"x"), key="invoices", context={"a": "b"})
        finally:
            agent.terminate()
