"""Counts

What an operation costs whatever the machine: round trips, calls of the PKCS#11 module, fsyncs,
bytes on the wire, copies in memory. `make test` counts again and fails if a number has grown beyond
`benchmarks/counts.json`.
"""

import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keycustody
from benchmarks.results import Results
from keycustody.v1.signing_service_pb2 import SignItem, SignRequest
from tests.faults.control import FUNCTIONS, Control, build
from tests.integration.command import Command, prepare, running
from tests.integration.scraping import metrics

#: What each number may not exceed.
ALLOWED = Path(__file__).with_name("counts.json")
CONTEXT = {"tenant": "42"}
_SETTINGS = """
[metrics]
socket = "../var/run/metrics/metrics.sock"
"""
_FAULTS = """[token.environment]
FAULTS_MODULE = "/usr/lib/softhsm/libsofthsm2.so"
FAULTS_CONTROL = "{}"
"""

#: Idle workers ask now and then whether the token is still there; that is no operation's cost.
_PROBES = {"C_GetSlotList", "C_GetSlotInfo", "C_GetTokenInfo", "C_GetInfo", "C_GenerateRandom"}
_COUNTED = tuple(name for name in FUNCTIONS if name not in _PROBES)

Counts = dict[str, int]


@dataclass(frozen=True)
class Counted:
    """A running agent whose every call of the module is counted."""

    command: Command
    agent: keycustody.Agent
    control: Control

    def of(self, work: Callable[[], object]) -> Counts:
        """What one piece of work costs."""
        work()  # what is done once: finding keys, opening files
        before = self._now()
        work()
        after = self._now()
        return {name: after[name] - before[name] for name in after}

    def _now(self) -> Counts:
        """The numbers so far, once they rest."""
        last: Counts = {}
        while last != (last := self._look()):
            time.sleep(0.05)
        return last

    def _look(self) -> Counts:
        found = metrics(self.command)

        def total(name: str, suffix: str) -> int:
            return int(sum(s.value for s in found[name].samples if s.name.endswith(suffix)))

        return {
            "round trips": total("keycustody_requests", "_total"),
            "PKCS#11 calls": sum(map(self.control.calls, _COUNTED)),
            "fsyncs": total("keycustody_audit_write_seconds", "_count"),
        }


def measure(results: Results, *, quick: bool) -> None:
    """All counts."""
    with tempfile.TemporaryDirectory(prefix="keycustody-counts-") as folder, counted(folder) as one:
        for name, count in count_all(one).items():
            results.figure(f"counts: {name}", "", [count])


@contextmanager
def counted(folder: str | Path) -> Iterator[Counted]:
    """An agent on a new token behind a module that counts; nothing is done at intervals."""
    place = Path(folder)
    command = prepare(place / "agent", _SETTINGS)
    control = Control(place / "control")
    text = command.config.read_text()
    for old, new in (
        ('module = "/usr/lib/softhsm/libsofthsm2.so"', f'module = "{build(place)}"'),
        ("[token.environment]\n", _FAULTS.format(control.path)),
        ("scan_seconds = 1.0", "scan_seconds = 3600.0\nself_test_seconds = 86400"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    command.config.write_text(text)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    with running(command), command.connect("demo") as agent:
        yield Counted(command, agent, control)


def count_all(one: Counted) -> Counts:
    """Each operation's counts, by name."""
    agent, found = one.agent, dict[str, int]()
    digest, data = bytes(32), os.urandom(1024)
    agent.sign("release", [digest] * 1024, prehashed=True)  # each worker has found the key
    with agent.session("invoices", context=CONTEXT) as session:
        sealed = session.encrypt(data)
        works: dict[str, Callable[[], object]] = {
            "one signature": lambda: agent.sign(
                "release", digest, prehashed=True, algorithm="ECDSA_SHA_256"
            ),
            "64 signatures at once": lambda: agent.sign(
                "release", [digest] * 64, prehashed=True, algorithm="ECDSA_SHA_256"
            ),
            "a session": lambda: agent.session("invoices", context=CONTEXT).close(),
            "1000 messages of one session": lambda: [session.encrypt(data) for _ in range(1000)],
            "1000 messages of one session, decrypted": lambda: [
                agent.decrypt(sealed, key="invoices", context=CONTEXT) for _ in range(1000)
            ],
        }
        for name, work in works.items():
            for what, count in one.of(work).items():
                found[f"{name}: {what}"] = count
        found["an envelope: bytes beyond the plaintext"] = len(sealed) - len(data)
        found["a large message, encrypted: copies in memory"] = _copies(session.encrypt)
        large = session.encrypt(bytes(_LARGE))
        found["a large message, decrypted: copies in memory"] = _copies(
            lambda _: agent.decrypt(large, key="invoices", context=CONTEXT)
        )
    request = SignRequest(key="release", algorithm="ECDSA_SHA_256", items=[SignItem(digest=digest)])
    found["one signature: bytes of the request"] = request.ByteSize()
    return found


_LARGE = 16 * 2**20


def _copies(work: Callable[[bytes], object]) -> int:
    """How many times a large message is in memory at most, besides the one that was given."""
    data = bytes(_LARGE)
    work(data)
    tracemalloc.start()
    try:
        work(data)
        return round(tracemalloc.get_traced_memory()[1] / _LARGE)
    finally:
        tracemalloc.stop()


def allowed() -> Counts:
    """What each number may be at most."""
    found: Counts = json.loads(ALLOWED.read_text())
    return found
