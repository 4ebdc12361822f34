"""A connection belongs to the process that used it first."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import keycustody
from keycustody import errors
from tests.unit.client.agent_double import AgentDouble

# Python 3.12 and later warn of forks with threads; that they are there is the point.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_child(act: Callable[[], object]) -> int:
    """Run it in a forked child; 0: it went well, 1: `AgentUnreachable` that says why, 2: else."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # gRPC may hang in a child
        try:
            act()
            os._exit(0)
        except errors.AgentUnreachable as error:
            os._exit(1 if "fork" in error.message else 2)
        except BaseException:  # noqa: BLE001 - a child of a test ends here, whatever happens
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_used_connection_says_so_in_a_child(agent: keycustody.Agent) -> None:
    with agent.session("invoices") as session:
        box = session.encrypt(b"x")
        agent.decrypt(box, key="invoices", context={})
        acts: list[Callable[[], object]] = [
            agent.keys,
            lambda: agent.within(1.0).keys(),
            lambda: agent.decrypt(box, key="invoices", context={}),
            lambda: session.encrypt(b"x"),
            lambda: agent.session("invoices"),
        ]
        assert [in_child(act) for act in acts] == [1] * 5
        # The parent goes on.
        assert agent.keys()
        assert session.encrypt(b"x")


def test_a_child_gets_its_own_by_asking(agent: keycustody.Agent) -> None:
    agent.keys()

    def own() -> None:
        with keycustody.connect(agent.socket) as mine, mine.session("invoices") as session:
            assert mine.decrypt(session.encrypt(b"x"), key="invoices", context={}) == b"x"

    assert in_child(own) == 0
    assert agent.keys()


def test_one_that_was_not_used_yet_is_the_childs(socket: Path) -> None:
    """As where a server loads the application before it forks."""
    with keycustody.connect(socket) as agent:
        assert in_child(agent.keys) == 0
        assert agent.keys()


def test_a_child_that_closes_ends_nothing_of_its_parents(agent: keycustody.Agent) -> None:
    with agent.session("invoices") as session:

        def leave() -> None:
            session.close()
            agent.close()

        assert in_child(leave) == 0
        assert session.encrypt(b"x")
        assert agent.keys()


BUSY = """
import os, sys, threading, time
import keycustody
opened = 0
agent = keycustody.connect(sys.argv[1])
end = threading.Event()
def work():
    global opened
    with agent.session("invoices") as session:
        opened += 1
        while not end.is_set():
            session.encrypt(b"x")
agent.keys()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
while opened < 3:
    time.sleep(0.01)
statuses = set()
for _ in range(30):
    child = os.fork()
    if child == 0:
        try:
            agent.keys()
        except keycustody.KeycustodyError as error:
            os._exit(1 if "fork" in error.message else 2)
        os._exit(0)
    statuses.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
end.set()
for thread in threads:
    thread.join()
print(statuses)
"""


def test_children_of_a_busy_parent(socket: Path, double: AgentDouble) -> None:
    """Whatever lock of ours another thread holds at the moment of the fork, the child does not
    wait, and the threads go on. They make no calls meanwhile: gRPC itself does not stand that."""
    double.lease = (3600, 2**60, 2**60)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUSY, socket],
        capture_output=True, text=True, check=False, timeout=60,
        # gRPC's handlers at a fork now and then crash a child of a busy parent (docs/client.md).
        env=os.environ | {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("{1}\n", "")
