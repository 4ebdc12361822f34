"""A session key is in clear inside the client only; a PIN only in its file and the workers."""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import keycustody as client
from tests.integration.command import Command, prepare, running

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


def test_canaries_appear_nowhere(tmp_path_factory: pytest.TempPathFactory) -> None:
    """PINs and a message, searched for in all that the agent writes and shows."""
    command = prepare(tmp_path_factory.mktemp("canary"), more="")
    pin, so_pin = f"canary{secrets.token_hex(8)}", f"officer{secrets.token_hex(8)}"
    for name, value in (("pin", pin), ("so-pin", so_pin)):
        file = command.folder / "var" / name
        file.touch(0o600)
        file.write_text(value + "\n")
    secret = secrets.token_hex(16)
    shown = [
        command.ok("token", "init", "--config", command.config),
        command.ok("keys", "apply", "--config", command.config),
    ]
    with running(command) as agent:
        with command.connect("demo") as connected:
            connected.sign("release", secret.encode())
            with connected.session("invoices", context={"a": "b"}) as session:
                box = session.encrypt(secret.encode())
                shown += [repr(session).encode(), repr(connected).encode()]
            connected.decrypt(box, key="invoices", context={"a": "b"})
            with pytest.raises(client.KeycustodyError) as caught:
                connected.decrypt(box[:-1], key="invoices", context={"a": "b"})
            shown.append(repr(caught.value).encode())
        tree = [psutil.Process(agent.pid), *psutil.Process(agent.pid).children(recursive=True)]
        for process in tree:
            shown.append(" ".join(process.cmdline()).encode())
            try:
                shown.append(repr(process.environ()).encode())
            except psutil.AccessDenied:
                # A worker is not dumpable: its own user may not look either.
                assert process.pid != agent.pid
        agent.terminate()
        shown += agent.communicate(timeout=20)
    files = [
        path
        for path in command.folder.rglob("*")
        if path.is_file() and path.name not in {"pin", "so-pin"}
    ]
    shown += [path.read_bytes() for path in files]
    assert any(path.name.startswith("audit-") for path in files)
    for canary in (pin, so_pin, secret):
        assert not any(canary.encode() in text for text in shown)
