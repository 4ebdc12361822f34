"""A session key is in clear inside the client only; a PIN only in its file and the workers."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from prometheus_client import Metric

import keycustody as client
from keycustody.client import delivery
from tests.integration.agent.canaries import SETTINGS, Canaries, import_key, of_files, of_processes
from tests.integration.command import Command, prepare, running
from tests.integration.scraping import eventually, metrics, scrape

BOX: Final[Any] = {"key": "invoices", "context": {"a": "b"}}
HPKE = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
OAEP = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303

#: Opens a session, decrypts with it, says "open", and waits: the client of the memory scan. It
#: tells the session key itself, so that the scan knows what to look for.
CLIENT = """
import sys
import keycustody
from keycustody.client import delivery

keys = []
original = delivery.Receiver.open

def noting(self, *arguments):
    key = original(self, *arguments)
    keys.append(bytes(key.value))
    return key

delivery.Receiver.open = noting
with keycustody.connect() as agent:
    with agent.session("invoices", context={"a": "b"}) as session:
        box = session.encrypt(b"plaintext canary 8d1f")
        agent.decrypt(box, key="invoices", context={"a": "b"})
        assert len(keys) == 2 and keys[0] == keys[1]
        print(keys[0].hex(), flush=True)
        sys.stdin.read()
"""


def memory_of(process: psutil.Process) -> Iterator[bytes]:
    """Every readable mapping of a process."""
    with Path(f"/proc/{process.pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) (r)", line)
            if found is None or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            start, end = int(found[1], 16), int(found[2], 16)
            memory.seek(start)
            try:
                yield memory.read(end - start)
            except OSError:
                continue  # a guard page, or a device


def holds(process: psutil.Process, needle: bytes) -> bool:
    return any(needle in region for region in memory_of(process))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read another process's memory")
def test_no_session_key_in_the_memory_of_agent_and_workers(keycustody: Command) -> None:
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | keycustody.environment,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    with client:
        key = bytes.fromhex(client.stdout.readline())
        assert len(key) == 32
        agent = psutil.Process(keycustody.agent_pid())
        processes = [agent, *agent.children()]
        assert len(processes) == 3
        # The scan finds what is there: the client holds its own key.
        assert holds(psutil.Process(client.pid), key)
        assert [process.name() for process in processes if holds(process, key)] == []
        client.stdin.close()


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> Canaries:
    """Canaries, to which each session key that is opened in this process is added."""
    known = Canaries()
    original = delivery.Receiver.open

    def noting(self: delivery.Receiver, *arguments: Any) -> Any:
        key = original(self, *arguments)
        known.add(f"session key {len(known.known)}", bytes(key.value))
        return key

    monkeypatch.setattr(delivery.Receiver, "open", noting)
    return known


def _serve_all(command: Command, canaries: Canaries) -> Iterator[tuple[str, bytes]]:
    """Have each operation done and some refused; yields what the client's objects tell of it."""
    known = client.Remembered(command.folder / "var" / "known-tokens")
    secret = canaries.text("plaintext").encode()
    with client.connect(socket=command.socket("demo"), delivery_key=known) as demo:
        for name in ("release", "tokens", "archive", "old"):
            demo.sign(name, secret)
        with demo.session("invoices", context={"a": "b"}) as session:
            box = session.encrypt(secret)
            yield "session", repr(session).encode()
        demo.decrypt(demo.rewrap(box, key="invoices", context={"a": "b"}), **BOX)
        agreeing, peer = demo.private_key("hpke"), ec.generate_private_key(ec.SECP256R1())
        assert isinstance(agreeing, ec.EllipticCurvePrivateKey)
        canaries.add("shared secret", agreeing.exchange(ec.ECDH(), peer.public_key()))
        sealed = HPKE.encrypt(secret, agreeing.public_key(), b"info")
        assert HPKE.decrypt(sealed, agreeing, b"info") == secret
        mail = demo.private_key("mail")
        assert isinstance(mail, rsa.RSAPrivateKey)
        assert mail.decrypt(mail.public_key().encrypt(secret, OAEP), OAEP) == secret
        with command.connect("admin") as admin:
            admin.key_changes.rotate("invoices")
            admin.key_changes.revoke("tokens", 1, "a canary")
            admin.reload()
            yield "status", repr(admin.status()).encode()
        moved = demo.rewrap(box, key="invoices", context={"a": "b"})
        assert demo.decrypt(moved, **BOX) == secret
        for attempt in (
            lambda: demo.decrypt(box[:-1], **BOX),
            lambda: demo.decrypt(box, key="invoices", context={"a": "c"}),
            lambda: demo.sign("tokens", secret),
            lambda: demo.sign("invoices", secret, algorithm="ED25519"),
        ):
            yield "error", _error(attempt)
        yield "agent", repr(demo).encode()
    with command.connect("stranger") as stranger:
        for _ in range(30):  # more than get a record each
            yield "denial", _error(lambda: stranger.sign("release", secret, algorithm="ED25519"))
        yield "denial", _error(lambda: stranger.decrypt(box, **BOX))


def _error(attempt: Callable[[], object]) -> bytes:
    with pytest.raises(client.KeycustodyError) as caught:
        attempt()
    return repr(caught.value).encode() + str(caught.getrepr(showlocals=False)).encode()


def _complaints(found: dict[str, Metric]) -> float:
    """How many warnings and errors were logged."""
    return sum(
        sample.value
        for sample in found["keycustody_log_events"].samples
        if sample.labels in ({"level": "error"}, {"level": "warning"})
    )


def _fail_the_pin(command: Command, pid: int, canaries: Canaries) -> None:
    """Have a worker come up with a PIN that is wrong."""
    file = command.folder / "var" / "pin"
    right = file.read_text()
    file.write_text(canaries.text("wrong PIN") + "\n")
    before = _complaints(metrics(command))
    psutil.Process(pid).children()[0].kill()
    # The worker that ended, and the one that did not come up.
    eventually(command, lambda found: _complaints(found) >= before + 2)
    file.write_text(right)


@pytest.mark.slow
def test_canaries_appear_nowhere(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries
) -> None:
    """PINs, messages, session keys and a private key, searched for in all that a busy agent writes
    and shows."""
    command = prepare(tmp_path_factory.mktemp("canary"), more="")
    temporary = command.folder / "tmp"
    temporary.mkdir()
    command.environment["TMPDIR"] = str(temporary)
    pin = canaries.text("PIN")
    for name, value in (("pin", pin), ("so-pin", canaries.text("SO PIN"))):
        file = command.folder / "var" / name
        file.touch(0o600)
        file.write_text(value + "\n")
    config = ("--config", command.config)
    shown = [("init", command.ok("token", "init", *config))]
    shown.append(("apply", command.ok("keys", "apply", *config)))
    settings = command.config.read_text().replace("[agent]", '[agent]\nlog_level = "debug"', 1)
    command.config.write_text(settings + SETTINGS)
    canaries.add("private key", import_key(command, pin))
    shown.append(("adopt", command.ok("keys", "adopt", "old", "--id", "0a01", *config)))
    with running(command) as agent:
        shown += _serve_all(command, canaries)
        _fail_the_pin(command, agent.pid, canaries)
        shown += [("metrics", scrape(command)), *of_processes(agent.pid)]
        agent.terminate()
        shown += zip(("out", "log"), agent.communicate(timeout=20), strict=True)
    log = dict(shown)["log"]
    for event in (b"worker.start_failed", b"reload.done", b"agent.stopping"):
        assert event in log
    assert {name.rstrip(" 0123456789") for name in canaries.known} == {
        *("PIN", "SO PIN", "wrong PIN", "plaintext", "session key", "shared secret", "private key")
    }
    assert canaries.found(iter([*shown, *of_files(command.folder)])) == []
