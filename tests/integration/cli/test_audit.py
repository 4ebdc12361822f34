"""`audit` on the journal of a real agent, and what its heads are worth to somebody else."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keycustody.cli import audit_words
from keycustody.errors import PermissionDenied
from keycustody.formats.signed_note import VerifierKey
from tests.integration.command import FEW_KEYS, PROJECT, Command, prepare, refused, running

QUICK = """
[audit]
rotate_bytes = 4096
head_records = 5
head_seconds = 0.5
"""


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """An agent that signs heads often and begins files often, after some requests."""
    command = prepare(tmp_path_factory.mktemp("audited"), "")
    command.config.write_text(FEW_KEYS.replace('keys = ["*"]', 'keys = ["release"]') + QUICK)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    with running(command), command.connect("demo") as agent:
        for number in range(30):
            agent.sign("release", b"%d" % number)
        yield command


@pytest.fixture(scope="module")
def vkey(audited: Command) -> str:
    """What verifies its heads."""
    return audited.ok("audit", "key", "--config", audited.config).decode().splitlines()[1]


def state(command: Command) -> Path:
    return command.folder / "var" / "state"


def copy(command: Command, to: Path) -> Path:
    """The journal as it is now; the head first, because the journal must hold it."""
    to.mkdir()
    for path in [state(command) / "audit.head", *sorted(state(command).glob("audit-*.jsonl"))]:
        shutil.copy(path, to / path.name)
    return to


def test_a_running_agents_journal_verifies_with_its_heads(audited: Command, vkey: str) -> None:
    done = audited.ok("audit", "verify", "--config", audited.config, "--key", vkey, "--json")
    report = json.loads(done)
    assert report["files"] > 2
    assert report["heads"] > 2
    assert report["covered"] >= 30
    assert not any("--key" in sentence for sentence in report["unknown"])


def test_the_key_comes_from_the_token_also_without_an_agent(tmp_path: Path) -> None:
    command = prepare(tmp_path / "c", "")
    command.config.write_text(FEW_KEYS + QUICK)
    command.ok("token", "init", "--config", command.config)
    refused(command("audit", "key", "--config", command.config), "TOKEN_NOT_PROVISIONED")
    command.ok("keys", "apply", "--config", command.config)
    offline = command.ok("audit", "key", "--config", command.config).decode().splitlines()
    assert offline[0].startswith("# keycustody:audit.v1 on token keycustody-test")
    with running(command):
        asked = command.ok("audit", "key", "--config", command.config).decode().splitlines()
    assert asked[1] == offline[1]
    # `apply` ended with a head, and so did the agent.
    kept = tmp_path / "vkey"
    kept.write_text("\n".join(offline))
    arguments = ("audit", "verify", "--config", command.config, "--key", kept, "--json")
    report = json.loads(command.ok(*arguments))
    assert report["records"] == report["covered"] + 1


def test_openssl_checks_a_head(audited: Command, vkey: str, tmp_path: Path) -> None:
    note = (state(audited) / "audit.head").read_text()
    text, _, line = note.rpartition("\n\n")
    (tmp_path / "text").write_text(text + "\n")
    (tmp_path / "signature").write_bytes(base64.b64decode(line.split(" ")[2])[4:])
    public = VerifierKey.decode(vkey).key
    (tmp_path / "key").write_bytes(
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER"]
    files = ["-inkey", "key", "-sigfile", "signature", "-in", "text"]
    subprocess.run([*command, *files], cwd=tmp_path, check=True, capture_output=True)


def test_a_journal_cut_back_to_an_older_head(audited: Command, vkey: str, tmp_path: Path) -> None:
    ours = copy(audited, tmp_path / "copy")
    kept = tmp_path / "kept.head"
    shutil.move(ours / "audit.head", kept)
    max(ours.glob("audit-*.jsonl")).unlink()
    arguments = ("audit", "verify", "--file", ours, "--key", vkey)
    audited.ok(*arguments)
    while audited(*arguments, "--expect-head", kept).returncode == 0:
        max(ours.glob("audit-*.jsonl")).unlink()
    done = audited(*arguments, "--expect-head", kept)
    refused(done, "AUDIT_TRUNCATED")
    assert done.returncode == 3
    again = audited(*arguments, "--expect-head", "-", stdin=kept.read_bytes())
    refused(again, "AUDIT_TRUNCATED")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--key", "no-such-file"), "FILE_UNUSABLE"),
        (("--key", "a+b+c"), "INVALID_REQUEST"),
        (("--expect-head", "/dev/null"), "INVALID_SIGNATURE"),
    ],
)
def test_odd_arguments(audited: Command, arguments: tuple[str, ...], code: str) -> None:
    refused(audited("audit", "verify", "--config", audited.config, *arguments), code)


def test_tail_follows_across_files(audited: Command) -> None:
    with audited.start(
        "audit", "tail", "-f", "-n", "2", "--json", "--config", audited.config
    ) as tail:
        try:
            assert tail.stdout is not None
            seen = [json.loads(tail.stdout.readline())["seq"] for _ in range(2)]
            with audited.connect("demo") as agent:
                for number in range(20):
                    agent.sign("release", b"%d" % number)
            seen += [json.loads(tail.stdout.readline())["seq"] for _ in range(20)]
            assert seen == list(range(seen[0], seen[0] + 22))
        finally:
            tail.terminate()


def test_search(audited: Command) -> None:
    where = ("--config", audited.config)
    with audited.connect("demo") as agent:
        agent.sign("release", b"x")
    signed = audited.ok("audit", "search", "--operation", "sign", "--since", "1h", "--json", *where)
    records = [json.loads(line) for line in signed.splitlines()]
    assert {record["operation"] for record in records} == {"sign"}
    one = records[-1]["request"]
    found = audited.ok("audit", "search", "--request", one, *where).decode()
    assert len(found.splitlines()) == 1
    assert "release.v1" in found
    assert audited.ok("audit", "search", "--until", "2020-01-01", *where) == b""
    assert audited.ok("audit", "search", "--principal", "nobody", *where) == b""
    refused(audited("audit", "search", "--since", "later", *where), "INVALID_REQUEST")
    for option, word in (("--operation", "singe"), ("--result", "ok")):
        refused(audited("audit", "search", option, word, *where), "INVALID_REQUEST")
    # Every word of a record is one that can be searched for.
    for record in audited.records():
        assert record["operation"] in audit_words.OPERATIONS
        assert record["result"] in audit_words.RESULTS


def test_the_status_says_how_far_heads_are(audited: Command, vkey: str) -> None:
    status = json.loads(audited.ok("status", "--json"))
    deadline = time.monotonic() + 30
    while status["audit"]["covered"] <= 30 and time.monotonic() < deadline:
        status = json.loads(audited.ok("status", "--json"))
    assert status["audit"]["covered"] > 30
    assert status["audit"]["verifier_key"] == vkey
    assert b"signed head" in audited.ok("status")


def test_a_flood_of_denials_is_counted(audited: Command) -> None:
    before = len(audited.records())
    with audited.connect("demo") as agent:
        for number in range(200):
            with pytest.raises(PermissionDenied):
                agent.sign(f"no-such-{number}", b"x", algorithm="ECDSA_SHA_256")
    deadline = time.monotonic() + 30
    counted: list[dict[str, object]] = []
    while sum(int(str(one["count"])) for one in counted) < 200 and time.monotonic() < deadline:
        counted = [one for one in audited.records()[before:] if one["result"] != "OK"]
    assert sum(int(str(one["count"])) for one in counted) == 200
    assert len(counted) < 60


def test_the_documents_commands_run_as_they_stand(audited: Command, tmp_path: Path) -> None:
    document = (PROJECT / "docs" / "audit.md").read_text()
    commands = "".join(re.findall(r"```sh\n(.*?)```", document, re.DOTALL))
    (tmp_path / "keycustody").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m keycustody.cli "$@"\n'
    )
    (tmp_path / "keycustody").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CONFIG": str(audited.config),
        "STATE": str(state(audited)),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env=os.environ | environment,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"Signature Verified Successfully" in done.stdout
