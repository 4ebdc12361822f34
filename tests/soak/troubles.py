"""What happens to an agent that is in use: faults, and what operators do."""

import random
import resource
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil

from keycustody.errors import KeycustodyError
from tests.faults.agents import strike
from tests.faults.control import Action, Control, Fault
from tests.integration.command import Command

#: How long after a trouble's end its traces may show.
AFTER_SECONDS = 3.0
#: Between two troubles, at least and at most.
_PAUSE_SECONDS = 1.0, 3.0
#: A journal is longer than that, and everything else in the state folder is shorter.
_FULL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Trouble:
    """One that happened, from when to when, and what callers may have seen of it."""

    name: str
    begun: float
    ended: float
    may_show: frozenset[str]

    def explains(self, code: str, begun: float, ended: float) -> bool:
        """May a call that lasted so long have ended so because of this?"""
        return code in self.may_show and begun < self.ended + AFTER_SECONDS and self.begun < ended


@dataclass
class Troubles:
    """Makes one trouble after another."""

    command: Command
    agent: int
    control: Control
    chance: random.Random
    happened: list[Trouble] = field(default_factory=list)
    #: Every public key of `release` that there ever was.
    public_keys: list[Any] = field(default_factory=list)
    #: Operators' calls that were refused, which none should be.
    refused: list[str] = field(default_factory=list)

    def run(self, over: threading.Event) -> None:
        """Make troubles until it is over; none is left."""
        self._learn()
        kinds: list[tuple[Callable[[], None], frozenset[str]]] = [
            (self._kill, _NOTHING),
            (self._stop, _NOTHING),
            (self._crash, _NOTHING),
            (self._hang, _NOTHING),
            (self._forget, _NOTHING),
            (self._away, frozenset({"TOKEN_UNAVAILABLE"})),
            (self._disk_full, frozenset({"AUDIT_UNAVAILABLE"})),
            (self._reload, _NOTHING),
            (self._rotate, _NOTHING),
            (self._revoke, _NOTHING),
        ]
        upcoming: list[tuple[Callable[[], None], frozenset[str]]] = []
        while not over.wait(self.chance.uniform(*_PAUSE_SECONDS)):
            if not upcoming:
                upcoming = self.chance.sample(kinds, len(kinds))
            make, may_show = upcoming.pop()
            begun = time.monotonic()
            make()
            name = make.__name__.strip("_").replace("_", " ")
            self.happened.append(Trouble(name, begun, time.monotonic(), may_show))
        self._learn()

    def _kill(self) -> None:
        strike(self.agent, signal.SIGKILL, self.chance)

    def _stop(self) -> None:
        strike(self.agent, signal.SIGSTOP, self.chance)

    def _crash(self) -> None:
        self._once(self.chance.choice((Action.SEGV, Action.ABORT, Action.EXIT)))

    def _hang(self) -> None:
        self._once(Action.HANG)

    def _once(self, action: Action) -> None:
        function = self.chance.choice(("C_Sign", "C_DeriveKey", "C_Decrypt", "C_UnwrapKey"))
        self.control.set(Fault(function, action))
        # Until it has hit somebody, who then is somebody's second try.
        _wait(lambda: self.control.remaining(function) == 0, 5)
        self.control.clear()
        time.sleep(3 if action is Action.HANG else 0)

    def _forget(self) -> None:
        self.control.forget_sessions()

    def _away(self) -> None:
        with self.control.absent():
            time.sleep(self.chance.uniform(0.5, 4))

    def _disk_full(self) -> None:
        agent = psutil.Process(self.agent)
        before = agent.rlimit(resource.RLIMIT_FSIZE)
        agent.rlimit(resource.RLIMIT_FSIZE, (_FULL_BYTES, before[1]))
        try:
            time.sleep(self.chance.uniform(0.5, 3))
        finally:
            agent.rlimit(resource.RLIMIT_FSIZE, before)

    def _reload(self) -> None:
        self._ask(lambda admin: admin.reload())

    def _rotate(self) -> None:
        self._ask(lambda admin: admin.key_changes.rotate("vault"))

    def _revoke(self) -> None:
        """Rotate `release`, and revoke its oldest version once nobody is given that any more."""
        self._ask(lambda admin: admin.key_changes.rotate("release"))
        with self.command.connect("demo") as demo:
            oldest = demo.key("release").versions[0].version
            _wait(lambda: demo.key("release").current > oldest, 10)
        self._learn()
        self._ask(lambda admin: admin.key_changes.revoke("release", oldest, "soak"))

    def _ask(self, what: Callable[[Any], object]) -> None:
        try:
            with self.command.connect("admin") as admin:
                what(admin)
        except KeycustodyError as error:
            self.refused.append(f"{error.code}: {error}")

    def _learn(self) -> None:
        with self.command.connect("demo") as demo:
            for version in demo.key("release").versions:
                key = version.public_key()
                if key not in self.public_keys:
                    self.public_keys.insert(0, key)


_NOTHING: frozenset[str] = frozenset()


def _wait(reached: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not reached() and time.monotonic() < end:
        time.sleep(0.01)
