"""An agent behind the shim, what its clients ask of it, and what hostile surroundings do to it."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from keycustody.errors import KeycustodyError
from tests import softhsm
from tests.faults.control import Control
from tests.integration.command import Command, prepare, wait_ready

SETTINGS = """
[agent]
state_dir = "../var/state"
run_dir = "../var/run"
[token]
profile = "softhsm2"
module = "{shim}"
label = "keycustody-faults"
pin = {{ file = "../var/pin" }}
so_pin = {{ file = "../var/so-pin" }}
workers = {workers}
[token.environment]
SOFTHSM2_CONF = "{{config_dir}}/../var/softhsm/softhsm2.conf"
FAULTS_MODULE = "{module}"
FAULTS_CONTROL = "{control}"
[principals.demo]
[keys.release]
purpose = "sign"
algorithm = "EC_P256"
[keys.meeting]
purpose = "agree"
algorithm = "EC_P256"
[keys.mail]
purpose = "decrypt"
algorithm = "RSA_2048"
[keys.vault]
purpose = "wrap"
[[grants]]
principals = ["demo"]
keys = ["*"]
operations = ["read", "sign", "agree", "decrypt", "generate", "unwrap", "rewrap"]
[limits]
scan_seconds = 1.0
"""
CONTEXT = {"tenant": "42"}


def behind_shim(folder: Path, shim: Path, *, workers: int = 2, more: str = "") -> Command:
    """A folder with settings of an agent whose module is the shim; nothing is on the token yet."""
    command = prepare(folder, more="")
    Control(folder / "control")
    settings = SETTINGS.format(
        shim=shim, module=softhsm.module(), control=folder / "control", workers=workers
    )
    command.config.write_text(settings + more)
    return command


@contextlib.contextmanager
def serving(command: Command) -> Iterator[subprocess.Popen[bytes]]:
    """Run the agent for the length of the block. What it logs goes to a file: in these tests that
    is more than a pipe holds."""
    with (command.folder / "log").open("ab") as log:
        agent = subprocess.Popen(
            [sys.executable, "-m", "keycustody.cli", "serve", "--config", command.config],
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | command.environment,
        )
    with agent:
        try:
            wait_ready(command, agent)
            yield agent
        finally:
            agent.terminate()


class Asking:
    """One client, which asks for one thing after another, each of them idempotent, and proves each
    answer."""

    def __init__(self, command: Command, seed: int) -> None:
        self._random = random.Random(seed)
        self._agent = command.connect("demo")
        listed = self._agent.keys()
        keys = {key.name: key for key in listed}
        self._signer = keys["release"].version(None).public_key()
        self._peer = keys["meeting"].version(None).public_key()
        self._mail = keys["mail"].version(None).public_key()
        with self._agent.session("vault", context=CONTEXT) as session:
            self._kept = [session.encrypt(b"kept")]
        self._asks = (self._sign, self._agree, self._decrypt, self._generate, self._unwrap)

    def once(self) -> None:
        """Ask for something. Raises errors of `keycustody.errors`."""
        self._random.choice(self._asks)()

    def close(self) -> None:
        self._agent.close()

    def _sign(self) -> None:
        message = self._random.randbytes(40)
        signature = self._agent.sign("release", message)
        assert isinstance(self._signer, ec.EllipticCurvePublicKey)
        self._signer.verify(signature, message, ec.ECDSA(hashes.SHA256()))

    def _agree(self) -> None:
        assert isinstance(self._peer, ec.EllipticCurvePublicKey)
        ours = ec.generate_private_key(ec.SECP256R1())
        assert self._agent.agree("meeting", ours.public_key()) == ours.exchange(
            ec.ECDH(), self._peer
        )

    def _decrypt(self) -> None:
        assert isinstance(self._mail, rsa.RSAPublicKey)
        text = self._random.randbytes(32)
        sha1 = hashes.SHA1()  # noqa: S303 (what SoftHSM's OAEP has)
        ciphertext = self._mail.encrypt(text, padding.OAEP(padding.MGF1(sha1), sha1, None))
        assert self._agent.rsa_decrypt("mail", ciphertext) == text

    def _generate(self) -> None:
        with self._agent.session("vault", context=CONTEXT) as session:
            self._kept = [session.encrypt(b"kept")]

    def _unwrap(self) -> None:
        # Rewrapping asks the token each time; the client keeps what it unwrapped.
        (envelope,) = self._kept
        moved = self._agent.rewrap(envelope, key="vault", context=CONTEXT)
        assert self._agent.decrypt(moved, key="vault", context=CONTEXT) == b"kept"


class Clients:
    """Many clients at once; use as a context manager."""

    def __init__(self, command: Command, number: int) -> None:
        self.answered = 0
        #: What failed, by code.
        self.failed: Counter[str] = Counter()
        #: When anything was answered last, and the longest that one call took.
        self.slowest = 0.0
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._broken: list[BaseException] = []
        self._asking = [Asking(command, seed) for seed in range(number)]
        self._threads = [threading.Thread(target=self._run, args=[one]) for one in self._asking]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        for one in self._asking:
            one.close()
        if self._broken:
            raise self._broken[0]

    def _run(self, asking: Asking) -> None:
        try:
            while not self._done.is_set():
                begun = time.monotonic()
                try:
                    asking.once()
                    code = ""
                except KeycustodyError as error:
                    code = error.code
                with self._lock:
                    self.answered += not code
                    self.failed.update([code] if code else [])
                    self.slowest = max(self.slowest, time.monotonic() - begun)
        except BaseException as error:  # noqa: BLE001 (a wrong answer is told by the test's thread)
            self._broken.append(error)


def workers_of(agent: int) -> list[psutil.Process]:
    """The worker processes of an agent."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(agent).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "keycustody.token.worker" in child.cmdline():
                    found.append(child)
    return found


def strike(agent: int, number: signal.Signals, chance: random.Random) -> bool:
    """Send a signal to one of an agent's workers; returns whether there was one."""
    if workers := workers_of(agent):
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(workers).send_signal(number)
            return True
    return False
