"""Clients that wait for their agent do not notice that it is restarted, or killed."""

import asyncio
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import keycustody as client
from keycustody import aio
from tests.integration.command import FEW_KEYS, Command, prepare, wait_ready

pytestmark = pytest.mark.slow

SETTINGS = (
    FEW_KEYS.replace('operations = ["read", "sign"]', 'operations = ["read", "sign", "generate"]')
    + """
[keys.invoices]
purpose = "wrap"
algorithm = "AES_256_HMAC_SHA_256"
lease = { seconds = 10 }
"""
)
THREADS, TASKS = 8, 8


class Agents:
    """One agent after another on the same settings."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = self.command.start("serve", "--config", self.command.config)
        wait_ready(self.command, self.process)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.communicate(timeout=60)
            self.process = None


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    command = prepare(tmp_path, more="")
    command.config.write_text(SETTINGS)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    made = Agents(command)
    made.start()
    yield made
    made.end()


class Signers:
    """Threads and tasks that sign without a pause until they are told to stop."""

    def __init__(self, path: Path) -> None:
        self.signatures: list[tuple[bytes, bytes]] = []
        self.failures: list[BaseException] = []
        self._path = path
        self._stop = threading.Event()
        self._agent = client.connect(path, timeout=60, patience=60)
        self._workers = [
            threading.Thread(target=self._guarded, args=(self._thread,)) for _ in range(THREADS)
        ]
        self._workers.append(threading.Thread(target=self._guarded, args=(self._loop,)))

    def __enter__(self) -> "Signers":
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.join()
        self._agent.close()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told by the test's thread
            self.failures.append(error)

    def _thread(self) -> None:
        while not self._stop.is_set():
            text = str(time.monotonic_ns()).encode()
            self.signatures.append((text, self._agent.sign("release", text)))

    def _loop(self) -> None:
        async def task(agent: aio.AsyncAgent) -> None:
            while not self._stop.is_set():
                text = str(time.monotonic_ns()).encode()
                self.signatures.append((text, await agent.sign("release", text)))

        async def main() -> None:
            async with aio.connect(self._path, timeout=60, patience=60) as agent:
                await asyncio.gather(*(task(agent) for _ in range(TASKS)))

        asyncio.run(main())

    def go_on(self) -> None:
        """Wait until more was signed than was under way."""
        seen, deadline = len(self.signatures), time.monotonic() + 60
        while len(self.signatures) < seen + 4 * (THREADS + TASKS) and not self.failures:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_no_call_fails_when_the_agent_is_restarted(agents: Agents) -> None:
    with Signers(agents.command.socket("demo")) as signers:
        for how in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            signers.go_on()
            agents.end(how)
            agents.start()
        signers.go_on()
    assert signers.failures == []
    with agents.command.connect("demo") as agent:
        public = agent.public_key("release")
    assert isinstance(public, ec.EllipticCurvePublicKey)
    for text, signature in signers.signatures:
        public.verify(signature, text, ec.ECDSA(hashes.SHA256()))


def test_a_session_outlives_its_agent_for_its_lease(agents: Agents) -> None:
    with agents.command.connect("demo") as agent, agent.session("invoices") as session:
        agents.end(signal.SIGKILL)
        codes: list[str] = []
        deadline = time.monotonic() + 30
        while not codes and time.monotonic() < deadline:
            try:
                session.encrypt(b"x")
            except client.KeycustodyError as error:
                codes.append(error.code)
            time.sleep(0.05)
        assert codes == ["SESSION_ENDED"]
        agents.start()
        assert session.encrypt(b"x")
