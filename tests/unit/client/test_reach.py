"""An agent that is not there, may not be used, or goes away: one clear sentence each."""

import os
import signal
import socket as sockets
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import keycustody
from keycustody import errors
from keycustody.client.reach import MAX_PATH_BYTES, socket_path
from tests.unit.client.agent_double import AgentDouble, serving
from tests.unit.client.conftest import Connect

BOTH_DRIVERS = True


def refused(connect: Connect, path: Path) -> str:
    started = time.monotonic()
    with connect(path) as agent, pytest.raises(errors.AgentUnreachable) as caught:
        agent.keys()
    assert time.monotonic() - started < 1
    message = caught.value.message
    assert str(path) in message
    assert "\n" not in message
    return message


def test_absent(connect: Connect, tmp_path: Path) -> None:
    assert "is the agent running" in refused(connect, tmp_path / "absent.sock")
    assert "is the agent running" in refused(connect, tmp_path / "no" / "folder.sock")


def test_not_a_socket(connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    assert "is not a socket" in refused(connect, path)
    assert "is not a socket" in refused(connect, tmp_path)


def test_nobody_listens(connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "stale.sock"
    with sockets.socket(sockets.AF_UNIX) as stale:
        stale.bind(str(path))
    assert "Nobody listens" in refused(connect, path)


def test_a_socket_of_another_kind(connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "datagram.sock"
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM) as other:
        other.bind(str(path))
        assert "another kind" in refused(connect, path)


@pytest.mark.skipif(os.geteuid() != 0, reason="drops to another user")
@pytest.mark.parametrize("closed", ["socket", "folder"])
def test_not_permitted(connect: Connect, double: AgentDouble, tmp_path: Path, closed: str) -> None:
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    path = folder / "agent.sock"
    try:
        with serving(double, path):
            folder.chmod(0o700 if closed == "folder" else 0o755)
            path.chmod(0o600)
            os.seteuid(65534)
            try:
                assert "may not use" in refused(connect, path)
            finally:
                os.seteuid(0)
    finally:
        path.unlink(missing_ok=True)
        folder.rmdir()


def test_too_long_a_path(tmp_path: Path) -> None:
    with pytest.raises(errors.AgentUnreachable, match="107"):
        keycustody.connect("/" + "a" * MAX_PATH_BYTES)
    assert len(socket_path("/" + "a" * (MAX_PATH_BYTES - 1))) == MAX_PATH_BYTES
    with pytest.raises(errors.AgentUnreachable, match="zero byte"):
        keycustody.connect("/a\0b")


def test_where_the_socket_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYCUSTODY_SOCKET", raising=False)
    assert socket_path(None) == "/run/keycustody/default/agent.sock"
    monkeypatch.setenv("KEYCUSTODY_SOCKET", "/from/environment.sock")
    assert socket_path(None) == "/from/environment.sock"
    assert socket_path("/given.sock") == "/given.sock"
    monkeypatch.chdir("/")
    assert socket_path("relative.sock") == "/relative.sock"


def test_a_path_that_is_no_uri(connect: Connect, double: AgentDouble, tmp_path: Path) -> None:
    plain, odd = tmp_path / "plain.sock", tmp_path / "we ird#?%41é.sock"
    with serving(double, plain):
        odd.symlink_to(plain)
        with connect(odd) as agent:
            assert agent.keys()


class Held:
    """Holds every Sign until it is let go."""

    def __init__(self, double: AgentDouble) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        double.tamper["Sign"] = self.wait

    def wait(self, response: object) -> object:
        self.entered.set()
        self.go.wait(10)
        return response


def test_gone_in_the_middle(connect: Connect, double: AgentDouble, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    held = Held(double)
    caught: list[keycustody.KeycustodyError] = []

    def sign() -> None:
        try:
            agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
        except keycustody.KeycustodyError as error:
            caught.append(error)

    with connect(path) as agent:
        with serving(double, path):
            thread = threading.Thread(target=sign)
            thread.start()
            assert held.entered.wait(10)
            threading.Timer(0.2, held.go.set).start()
        thread.join()
        assert [error.code for error in caught] == ["AGENT_GONE"]
        assert "went away" in caught[0].message
        with pytest.raises(errors.AgentUnreachable):
            agent.keys()
        with serving(double, path):
            assert agent.keys()


SERVE = """
import sys, time
from pathlib import Path
from tests.unit.client.agent_double import AgentDouble, serving
from tests.unit.client.conftest import Connect

BOTH_DRIVERS = True
double = AgentDouble()
double.tamper["Sign"] = lambda response: (print("signing", flush=True), time.sleep(60))
with serving(double, Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_killed_in_the_middle(connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    child = subprocess.Popen([sys.executable, "-c", SERVE, path], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    stdout = child.stdout

    def kill() -> None:
        stdout.readline()
        child.kill()

    threading.Thread(target=kill).start()
    with connect(path) as agent:
        with pytest.raises(errors.AgentGone):
            agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
        with pytest.raises(errors.AgentUnreachable, match="Nobody listens"):
            agent.keys()
    child.wait()
    stdout.close()


def test_an_agent_that_does_not_answer(connect: Connect, double: AgentDouble, socket: Path) -> None:
    held = Held(double)
    agent = connect(socket, timeout=0.2)
    with agent, pytest.raises(errors.DeadlineExceeded, match="longer deadline"):
        agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
    held.go.set()


def test_an_agent_behind_a_dead_listener(connect: Connect, tmp_path: Path) -> None:
    """Something listens, and speaks no gRPC."""
    path = tmp_path / "mute.sock"
    with sockets.socket(sockets.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen()
        agent = connect(path, timeout=0.3)
        with agent, pytest.raises((errors.DeadlineExceeded, errors.AgentGone)):
            agent.keys()


def test_a_closed_agent(agent: keycustody.Agent) -> None:
    agent.close()
    agent.close()
    with pytest.raises(errors.AgentUnreachable, match="closed"):
        agent.keys()
    assert repr(agent).endswith("closed>")


def test_grpc_itself_says_nothing(tmp_path: Path) -> None:
    script = (
        "import keycustody, sys\n"
        "try:\n    keycustody.connect(sys.argv[1]).keys()\n"
        "except keycustody.KeycustodyError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "absent"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.startswith("There is no socket")


def test_interrupted(double: AgentDouble, socket: Path) -> None:
    held = Held(double)
    with keycustody.connect(socket) as agent:
        main = threading.get_ident()

        def interrupt() -> None:
            held.entered.wait(5)
            signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
        held.go.set()
        assert agent.keys()
