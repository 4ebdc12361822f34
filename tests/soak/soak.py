"""One soak: an agent, clients, troubles, and what is checked when it is over."""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from keycustody.custody.audit import verify
from tests.faults.agents import behind_shim, serving, workers_of
from tests.faults.control import Control
from tests.integration.command import Command
from tests.soak.clients import Client, unreadable, unverified
from tests.soak.ledger import Seen, no_retries, unexplained
from tests.soak.troubles import Trouble, Troubles
from tests.soak.vitals import Sample, Vitals

CLIENTS = 8
#: Files of the journal are short, so that many are begun.
MORE = "[audit]\nrotate_bytes = '2MiB'\nhead_seconds = 2.0\n"


@dataclass(frozen=True)
class Outcome:
    """What happened, and `findings`: what should not have, one sentence each."""

    seconds: float
    begun: float
    seen: list[Seen]
    troubles: list[Trouble]
    samples: list[Sample]
    records: int
    envelopes: int
    signatures: int
    restarts: int
    findings: list[str]

    @property
    def codes(self) -> Counter[str]:
        """How calls ended."""
        return Counter(one.code or "OK" for one in self.seen)


def soak(folder: Path, shim: Path, seconds: float, seed: int) -> Outcome:
    """Prepare an agent in an empty folder, and soak it for so long."""
    no_retries()
    command = behind_shim(folder, shim, more=MORE)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    with serving(command) as process:
        outcome = _soaked(command, process.pid, seconds, seed)
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(30)
    left = [child for child in children if child.is_running()]
    outcome.findings.extend(f"process {child.pid} outlived the agent" for child in left)
    return outcome


def _soaked(command: Command, agent: int, seconds: float, seed: int) -> Outcome:
    over = threading.Event()
    clients = [Client(command, number) for number in range(CLIENTS)]
    troubles = Troubles(command, agent, Control(command.folder / "control"), random.Random(seed))
    vitals = Vitals(agent)
    runs = [vitals.run, *(client.run for client in clients)]
    threads = [threading.Thread(target=run, args=[over]) for run in runs]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    enough = threading.Timer(seconds, over.set)
    enough.start()
    try:
        troubles.run(over)
    finally:
        over.set()
        enough.cancel()
        for thread in threads:
            thread.join()
    took = time.monotonic() - begun
    seen = [one for client in clients for one in client.seen]
    findings = _findings(command, clients, troubles, vitals, seen)
    with command.connect("admin") as admin:
        status = admin.status()
    if (status.token.workers_ready, len(workers_of(agent))) != (2, 2):
        findings.append(f"{status.token.workers_ready} workers are ready, of two")
    return Outcome(
        took,
        begun,
        seen,
        troubles.happened,
        vitals.samples,
        len(command.records()),
        sum(len(client.sealed) for client in clients),
        sum(len(client.signed) for client in clients),
        status.token.restarts,
        findings,
    )


def _findings(
    command: Command, clients: list[Client], troubles: Troubles, vitals: Vitals, seen: list[Seen]
) -> list[str]:
    records = command.records()
    found = [wrong for client in clients for wrong in client.wrong]
    found += [f"an operator was refused: {refusal}" for refusal in troubles.refused]
    found += _out_of_nowhere(seen, troubles.happened)
    if number := unverified(clients, troubles.public_keys):
        found.append(f"{number} signatures do not verify")
    if number := unreadable(clients, command):
        found.append(f"{number} envelopes do not decrypt")
    found += unexplained(seen, records)
    # Raises where the chain is broken.
    verify(command.folder / "var" / "state")
    return found + vitals.growing()


def _out_of_nowhere(seen: list[Seen], troubles: list[Trouble]) -> list[str]:
    """Return the failures that no trouble explains."""
    failed = [one for one in seen if one.code]
    odd = Counter(
        one.code
        for one in failed
        if not any(trouble.explains(one.code, one.begun, one.ended) for trouble in troubles)
    )
    return [f"{number} calls failed with {code}, and no reason" for code, number in odd.items()]
