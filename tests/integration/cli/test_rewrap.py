"""`rewrap` against a real agent: v1 is left for v2, and whatever happens everything still opens."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from keycustody.formats import envelope
from keycustody.formats.state import State
from tests.integration import versions
from tests.integration.command import FEW_KEYS, Command, prepare, refused, running
from tests.strace import killed_at, needs_strace

SETTINGS = """
[keys.invoices]
purpose = "wrap"
[keys.receipts]
purpose = "wrap"
[principals.reader]
[principals.mover]
[[grants]]
principals = ["demo"]
keys = ["invoices", "receipts"]
operations = ["generate", "unwrap"]
[[grants]]
principals = ["mover"]
keys = ["invoices", "receipts"]
operations = ["rewrap"]
"""


@pytest.fixture(scope="module")
def custody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """An agent of two wrap keys; principal `demo` reads and writes, `mover` may only rewrap."""
    command = prepare(tmp_path_factory.mktemp("rewrap"))
    command.config.write_text(FEW_KEYS + SETTINGS)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    with running(command):
        yield command


def mover(command: Command) -> tuple[str, str]:
    return "--socket", str(command.socket("mover"))


def version_of(path: Path) -> int:
    return envelope.parse(path.read_bytes())[0].version


def fill(command: Command, folder: Path, key: str, count: int = 6) -> dict[Path, bytes]:
    """Envelopes of two contexts; returns their plaintexts."""
    folder.mkdir()
    plain = {}
    with command.connect("demo") as agent:
        for tenant in ("42", "43"):
            with agent.session(key, context={"tenant": tenant}) as session:
                for number in range(count // 2):
                    path = folder / f"{tenant}-{number}"
                    plain[path] = os.urandom(20_000)
                    path.write_bytes(session.encrypt(plain[path]))
    return plain


def rotate(command: Command, key: str, number: int) -> None:
    """Make a version, and wait until new session keys are made under it."""
    versions.create(command, key, number)

    def serves() -> bool:
        with command.connect("demo") as agent:
            return envelope.parse(agent.session(key).encrypt(b""))[0].version == number

    versions.until(serves)


def test_from_one_version_to_the_next(custody: Command, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    plain = fill(custody, folder, "invoices")
    (folder / "notes.txt").write_bytes(b"no envelope")
    bodies = {path: path.read_bytes() for path in plain}
    with custody.connect("demo") as agent:
        session = agent.session("invoices", context={"tenant": "42"})
        cached = next(iter(plain))
        assert agent.decrypt(bodies[cached], key="invoices", context={"tenant": "42"})
        rotate(custody, "invoices", 2)

        command = ("rewrap", folder, "--key", "invoices", "--json", *mover(custody))
        dry = json.loads(custody.ok(*command, "--dry-run"))
        assert (dry["moved"], {version_of(path) for path in plain}) == (6, {1})
        done = json.loads(custody.ok(*command))
        assert done == {
            "dry_run": False,
            "scanned": 7,
            "moved": 6,
            "newest": 0,
            "mended": 0,
            "no_envelope": 1,
            "other_key": 0,
            "failed": [],
        }
        again = custody.ok("rewrap", folder, "--any", *mover(custody)).decode()
        assert "already newest  6" in again

        first = versions.recorded(custody, "invoices", 1)
        versions.write(custody, replace(first, state=State.RETIRED))
        versions.write(custody, replace(first, state=State.REVOKED))
        old = ("decrypt", "-", "-o", "-", "--any")
        versions.until(lambda: custody(*old, stdin=bodies[cached]).returncode != 0)
        refused(custody(*old, stdin=bodies[cached]), "KEY_REVOKED")

        for path, data in plain.items():
            after = path.read_bytes()
            assert version_of(path) == 2
            _, start = envelope.parse(after)
            slot = start - envelope.SLOT_BYTES
            assert after[:slot] + after[start:] == bodies[path][:slot] + bodies[path][start:]
            assert agent.decrypt(after, key="invoices", context={"tenant": path.name[:2]}) == data
        # What was held before the rotation goes on within its lease.
        assert session.encrypt(b"goes on")
    usage = ("keys", "usage", "invoices", "--config", custody.config)
    told = json.loads(custody.ok(*usage, "--json", folder))
    assert (told["files"], told["journal_since"]) == (7, custody.records()[0]["time"])
    first_version, second = told["versions"]
    assert (first_version["version"], first_version["envelopes"]) == (1, 0)
    assert first_version["operation"] in ("rewrap", "unwrap")
    assert (second["version"], second["envelopes"], second["operation"]) == (2, 6, "unwrap")
    assert second["bytes"] == sum(path.stat().st_size for path in plain)
    shown = custody.ok(*usage, folder).decode()
    assert "7 files at the given paths were looked at, and nothing else." in shown
    assert "No paths were given" in custody.ok(*usage).decode()
    assert "this agent's alone" in shown
    (folder / "broken").write_bytes(b"KCUSTODY")
    assert custody(*usage, folder).returncode == 1

    moved = [one for one in custody.records() if one["operation"] == "rewrap"]
    assert {one["principal"] for one in moved} == {"mover"}
    assert all(len(item) == 64 + len(":OK") for one in moved for item in one["items"])


def test_rewrap_alone_does_not_decrypt(custody: Command, tmp_path: Path) -> None:
    plain = fill(custody, tmp_path / "data", "receipts", 2)
    data = next(iter(plain)).read_bytes()
    refused(
        custody("decrypt", "-", "-o", "-", "--any", *mover(custody), stdin=data),
        "PERMISSION_DENIED",
    )
    done = custody("rewrap", tmp_path / "data", "--any", "--json")
    assert done.returncode == 1
    assert {one["code"] for one in json.loads(done.stdout)["failed"]} == {"PERMISSION_DENIED"}
    text = custody("rewrap", tmp_path / "data", "--any")
    assert text.stderr.count(b"[PERMISSION_DENIED]") == 2
    assert custody("rewrap", tmp_path / "data").returncode == 2


@needs_strace
def test_killed_in_the_middle_and_run_again(custody: Command, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    plain = fill(custody, folder, "receipts")
    rotate(custody, "receipts", 2)
    for call, number in (("pwrite64", 3), ("fdatasync", 1), ("unlinkat", 1)):
        subprocess.run(
            [
                *killed_at(call, number),
                *(sys.executable, "-m", "keycustody.cli", "rewrap", folder, "--any"),
                *mover(custody),
            ],
            check=False,
            capture_output=True,
            env=os.environ | custody.environment,
        )
        with custody.connect("demo") as agent:
            for path, data in plain.items():
                context = {"tenant": path.name[:2]}
                assert agent.decrypt(path.read_bytes(), key="receipts", context=context) == data
    report = json.loads(custody.ok("rewrap", folder, "--any", "--json", *mover(custody)))
    assert (report["scanned"], report["failed"]) == (6, [])
    assert {version_of(path) for path in plain} == {2}
    assert list(folder.glob(".*")) == []


def test_usage_lists_what_never_served_here(custody: Command) -> None:
    config = ("--config", custody.config)
    shown = custody.ok("keys", "rotate", "receipts", *config).decode()
    made = int(shown.partition("receipts.v")[2].partition(":")[0])
    told = json.loads(custody.ok("keys", "usage", "receipts", *config, "--json"))
    assert [one["version"] for one in told["versions"]] == list(range(1, made + 1))
    assert told["versions"][-1]["last_served"] is None
    assert b"LAST SERVED HERE" in custody.ok("keys", "usage", "receipts", *config)
