"""The agent as a process: alone on its state, closed to others, and alive when workers are not."""

import os
import signal
import socket
import stat
import threading
import time

import psutil
import pytest

from keycustody.errors import AgentGone, AgentUnreachable, KeycustodyError
from tests.integration.command import Command, prepare, refused, running

# Each test starts an agent, or several, of its own.
pytestmark = pytest.mark.slow

NOBODY = 65534


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A token and settings of our own, to be started and killed at will."""
    command = prepare(tmp_path_factory.mktemp("own"), more="")
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    return command


def test_a_second_agent_on_the_same_state_is_refused(keycustody: Command) -> None:
    refused(keycustody("serve", "--config", keycustody.config), "STATE_LOCKED")
    with keycustody.connect("demo") as agent:
        assert agent.keys()


def test_offline_commands_are_refused_beside_an_agent(keycustody: Command) -> None:
    refused(keycustody("token", "clear-pin-guard", "--config", keycustody.config), "STATE_LOCKED")


def test_a_second_agent_on_the_same_sockets_is_refused(keycustody: Command) -> None:
    text = keycustody.config.read_text()
    other = keycustody.config.with_name("other.toml")
    other.write_text(text.replace('state_dir = "../var/state"', 'state_dir = "../var/state2"'))
    done = keycustody("serve", "--config", other)
    # After what the agent logged: it had begun to start.
    assert done.stderr.endswith(b"stop it first. [STATE_LOCKED]\n")
    assert done.returncode == 1
    with keycustody.connect("demo") as agent:
        assert agent.keys()


def test_each_socket_is_alone_in_a_folder_that_only_its_owner_opens(keycustody: Command) -> None:
    for principal in ("demo", "stranger", "admin"):
        path = keycustody.socket(principal)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert {entry.name for entry in path.parent.iterdir()} == {"agent.sock", "lock"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_cannot_connect(keycustody: Command) -> None:
    path = keycustody.socket("demo")
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            with socket.socket(socket.AF_UNIX) as opened:
                opened.connect(str(path))
        except PermissionError:
            os._exit(13)
        except BaseException:  # noqa: BLE001 - a forked child must not run pytest's handlers
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 13


def test_killed_workers_lose_no_call(own: Command) -> None:
    with running(own) as agent, own.connect("demo") as connected:
        stop = time.monotonic() + 4
        failures: list[KeycustodyError] = []
        count = 0

        def load() -> None:
            nonlocal count
            while time.monotonic() < stop:
                try:
                    connected.sign("release", b"x")
                    count += 1
                except KeycustodyError as error:
                    failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        while time.monotonic() < stop - 1:
            time.sleep(0.7)
            workers = psutil.Process(agent.pid).children()
            if len(workers) > 1:
                workers[0].send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
        assert failures == []
        assert count > 100
        with own.connect("admin") as admin:
            assert admin.status().token.restarts > 0


def test_an_agent_that_dies_is_told_and_leaves_no_worker(own: Command) -> None:
    with running(own) as agent, own.connect("demo") as connected:
        connected.sign("release", b"x")
        workers = psutil.Process(agent.pid).children()
        assert workers
        agent.kill()
        agent.wait()
        with pytest.raises((AgentGone, AgentUnreachable)):
            connected.sign("release", b"x", algorithm="ECDSA_SHA_256")
        _, alive = psutil.wait_procs(workers, timeout=5)
        assert alive == []


def test_the_next_agent_goes_on_where_a_killed_one_stopped(own: Command) -> None:
    with running(own) as agent:
        agent.kill()
        agent.wait()
    with running(own), own.connect("demo") as connected:
        connected.sign("release", b"x")
    own.ok("audit", "verify", "--config", own.config)


def test_sigterm_ends_it_cleanly(own: Command) -> None:
    with running(own) as agent:
        agent.terminate()
        assert agent.wait(timeout=20) == 0
    assert not own.socket("demo").exists()
