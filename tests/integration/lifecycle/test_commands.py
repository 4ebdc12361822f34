"""The life of a key, from the command line: without an agent, and through one that runs."""

import json
import re
import shlex
import shutil
import threading
import time
from pathlib import Path

import pytest

from keycustody import Agent
from keycustody.errors import KeycustodyError, KeyRevoked
from keycustody.formats import envelope
from tests.integration.command import FEW_KEYS, PROJECT, Command, prepare, refused, running
from tests.integration.versions import until

_TEXT = (PROJECT / "docs" / "lifecycle.md").read_text()
PAGE = re.findall(r"```sh\n(.*?)```", _TEXT, re.DOTALL)[0].splitlines()
MORE = """
[keys.lost]
purpose = "sign"
algorithm = "EC_P256"
[keys.seals]
purpose = "sign"
algorithm = "EC_P256"
[keys.invoices]
purpose = "wrap"
destroy_wait_days = 0
[[grants]]
principals = ["demo"]
keys = ["invoices"]
operations = ["generate", "unwrap"]
"""


@pytest.fixture(scope="module")
def keycustody(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A token of this module's own; a short name, for the sockets' sake."""
    command = prepare(tmp_path_factory.mktemp("l"))
    command.config.write_text(FEW_KEYS + MORE)
    command.ok("token", "init", "--config", command.config)
    command.ok("keys", "apply", "--config", command.config)
    return command


def keys(command: Command, *arguments: str | Path) -> str:
    return command.ok("keys", *arguments, "--config", command.config).decode()


def test_a_plan_of_nothing_is_nothing(keycustody: Command) -> None:
    done = keycustody("keys", "plan", "--config", keycustody.config, "--detailed-exitcode")
    assert (done.returncode, done.stdout.decode()) == (
        0,
        "Nothing to do: the token has every declared key.\n",
    )


def test_what_is_missing_is_planned_with_status_2(keycustody: Command) -> None:
    settings = keycustody.config.read_text()
    keycustody.config.write_text(
        settings + '[keys.more]\npurpose = "sign"\nalgorithm = "EC_P256"\n'
    )
    try:
        arguments = ("--config", keycustody.config, "--detailed-exitcode", "--json")
        done = keycustody("keys", "plan", *arguments)
    finally:
        keycustody.config.write_text(settings)
    assert done.returncode == 2
    assert json.loads(done.stdout) == {
        "steps": [
            {
                "action": "create",
                "key": "more",
                "version": 1,
                "text": "create more.v1: EC_P256 for sign",
                "done": False,
            }
        ],
        "findings": [],
    }


def test_a_life_without_an_agent(keycustody: Command) -> None:
    settings = keycustody.config.read_text()
    # Long enough that the second command comes within it, however slow the machine is.
    keycustody.config.write_text(settings.replace("scan_seconds = 1.0", "scan_seconds = 600.0"))
    made = keys(keycustody, "rotate", "release")
    again = keys(keycustody, "rotate", "release")
    keycustody.config.write_text(settings)
    assert made == "done: create release.v2: EC_P256 for sign\n"
    assert "Nothing to do" in again
    assert "retired" in keys(keycustody, "retire", "release", "--version", "1")
    assert "revoked: lost" in keys(
        keycustody, "revoke", "release", "--version", "1", "--reason", "lost"
    )
    assert "Nothing to do" in keys(
        keycustody, "revoke", "release", "--version", "1", "--reason", "lost"
    )
    destroy = ("keys", "destroy", "release", "--version", "1", "--config", keycustody.config)
    refused(keycustody(*destroy, "--confirm", "release"), "INVALID_TRANSITION")
    refused(keycustody(*destroy, "--confirm", "relaese"), "INVALID_REQUEST")
    unanswered = keycustody(*destroy)
    assert unanswered.returncode == 2
    assert b"--confirm release" in unanswered.stderr


def test_a_life_through_a_running_agent(keycustody: Command) -> None:
    with running(keycustody), keycustody.connect("demo") as demo:
        with demo.session("invoices", context={"tenant": "1"}) as session:
            old = session.encrypt(b"old")
        assert "create invoices.v2" in keys(keycustody, "rotate", "invoices")
        revoke = ("revoke", "invoices", "--version", "1", "--reason", "lost")
        assert "invoices.v1 as revoked" in keys(keycustody, *revoke)
        # At once in this agent; version 2 serves although it is new: there is no other.
        with keycustody.connect("demo") as other:
            with pytest.raises(KeyRevoked):
                other.decrypt(old, key="invoices", context={"tenant": "1"})
            with other.session("invoices", context={"tenant": "1"}) as session:
                new = session.encrypt(b"new")
        destroy = ("destroy", "invoices", "--version", "1", "--confirm", "invoices")
        keys(keycustody, *destroy, "--dry-run")
        assert "destroy the objects of invoices.v1" in keys(keycustody, *destroy)
        assert "Nothing to do" in keys(keycustody, *destroy)
        assert demo.decrypt(new, key="invoices", context={"tenant": "1"}) == b"new"
        with keycustody.connect("admin") as admin:
            states = {
                version.version: version.state
                for key in admin.status().keys
                if key.name == "invoices"
                for version in key.details
            }
        assert states == {1: "destroyed", 2: "active"}
    details = [
        (record["via"], record["detail"])
        for record in keycustody.records()
        if record["operation"] == "destroy" and record["result"] == "OK"
    ]
    assert details[0] == ("socket", "a plan only: nothing was changed")
    assert ("socket", "intent: destroy the objects of invoices.v1") in details
    assert ("socket", "done: destroy the objects of invoices.v1") in details


#: The commands that change keys, but for their settings.
CHANGES: list[list[str]] = [
    ["plan", "--detailed-exitcode"],
    ["apply"],
    ["rotate", "brandnew"],
    ["retire", "release", "--version", "1"],
    ["revoke", "release", "--version", "1", "--reason", "lost"],
    ["destroy", "release", "--version", "1", "--confirm", "release"],
    ["adopt", "brandnew", "--id", "0a"],
]


def test_an_agent_that_follows_other_settings_is_not_asked(keycustody: Command) -> None:
    settings = keycustody.config.read_text()
    declared = '[keys.brandnew]\npurpose = "sign"\nalgorithm = "EC_P256"\n'
    copy = keycustody.config.with_name("copy.toml")
    try:
        with running(keycustody):
            copy.write_text(settings)
            assert "Nothing" in keycustody.ok("keys", "plan", "--config", copy).decode()
            keycustody.config.write_text(settings + declared)
            for change in CHANGES:
                done = keycustody("keys", *change, "--config", keycustody.config)
                refused(done, "INVALID_REQUEST")
                assert b"keycustody reload" in done.stderr
            # By the agent's own settings, there is nothing to say against it.
            keycustody.ok("keys", "plan", "--socket", keycustody.socket("admin"))
            keycustody.ok("reload", "--socket", keycustody.socket("admin"))
            assert "create brandnew.v1" in keys(keycustody, "plan")
            copy.write_text(
                keycustody.config.read_text().replace('"keycustody-test"', '"another-token"')
            )
            refused(keycustody("keys", "plan", "--config", copy), "INVALID_REQUEST")
    finally:
        keycustody.config.write_text(settings)
        copy.unlink(missing_ok=True)


def test_a_key_without_an_active_version_is_amiss(keycustody: Command) -> None:
    keys(keycustody, "revoke", "lost", "--version", "1", "--reason", "stolen")
    done = keycustody("keys", "plan", "--config", keycustody.config, "--detailed-exitcode")
    assert done.returncode == 2
    assert done.stdout.decode() == (
        "Nothing that `keys apply` would do.\n"
        "inactive: lost: no version is active; `keycustody keys rotate lost` makes one.\n"
    )
    keys(keycustody, "rotate", "lost")
    assert "inactive" not in keys(keycustody, "plan")


def test_signatures_of_older_versions_verify_until_they_are_revoked(
    keycustody: Command, tmp_path: Path
) -> None:
    signed, other = tmp_path / "data", tmp_path / "other"
    signed.write_bytes(b"hi")
    other.write_bytes(b"ho")
    old, new = tmp_path / "1.sig", tmp_path / "2.sig"
    with running(keycustody):
        keycustody.ok("sign", "seals", signed, "-o", old)
        keys(keycustody, "rotate", "seals")
        keycustody.ok("sign", "seals", signed, "-o", new, "--version", "2")
        for signature in (old, new):
            keycustody.ok("verify", "seals", signed, signature)
            refused(keycustody("verify", "seals", other, signature), "INVALID_SIGNATURE")
        refused(keycustody("verify", "seals", signed, old, "--version", "2"), "INVALID_SIGNATURE")
        keys(keycustody, "retire", "seals", "--version", "1")
        keycustody.ok("verify", "seals", signed, old)
        keys(keycustody, "revoke", "seals", "--version", "1", "--reason", "stolen")
        refused(keycustody("verify", "seals", signed, old), "INVALID_SIGNATURE")
        refused(keycustody("verify", "seals", signed, old, "--version", "1"), "KEY_REVOKED")
        refused(keycustody("verify", "seals", signed, old, "--version", "9"), "KEY_NOT_FOUND")
        keycustody.ok("verify", "seals", signed, new)
        keys(keycustody, "revoke", "seals", "--version", "2", "--reason", "stolen")
        refused(keycustody("verify", "seals", signed, new), "KEY_REVOKED")
        with keycustody.connect("demo") as demo, pytest.raises(KeyRevoked):
            demo.public_key("seals")
        keys(keycustody, "rotate", "seals")


def test_nobody_but_the_operators_changes_keys(keycustody: Command) -> None:
    with running(keycustody):
        apply = keycustody("keys", "apply", "--socket", keycustody.socket("demo"))
        refused(apply, "UNIMPLEMENTED")


def test_rotation_under_load_fails_no_request(keycustody: Command) -> None:
    failures: list[BaseException] = []
    versions: set[int] = set()
    stop = threading.Event()

    def sign() -> None:
        try:
            with keycustody.connect("demo") as demo:
                while not stop.is_set():
                    demo.sign("release", b"x", algorithm="ECDSA_SHA_256")
        except BaseException as error:  # noqa: BLE001 - the test's whole question
            failures.append(error)

    def unwrap() -> None:
        try:
            while not stop.is_set():
                with keycustody.connect("demo") as demo:
                    with demo.session("invoices", context={}) as session:
                        sealed = session.encrypt(b"x")
                    versions.add(keycustody_version(sealed))
                with keycustody.connect("demo") as demo:
                    assert demo.decrypt(sealed, key="invoices", context={}) == b"x"
        except BaseException as error:  # noqa: BLE001 - the test's whole question
            failures.append(error)

    with running(keycustody):
        threads = [threading.Thread(target=work) for work in (sign, unwrap)]
        for thread in threads:
            thread.start()
        try:
            before = set(versions)
            keys(keycustody, "rotate", "release")
            keys(keycustody, "rotate", "invoices")
            deadline = time.monotonic() + 30
            while len(versions | before) < 2 and time.monotonic() < deadline and not failures:
                time.sleep(0.1)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert failures == []
    assert len(versions) >= 2  # both the old and the new version were used


def test_a_client_that_is_killed_in_the_middle_leaves_a_whole_change(keycustody: Command) -> None:
    settings = keycustody.config.read_text()
    slow = '[keys.slow]\npurpose = "sign"\nalgorithm = "RSA_4096"\n'
    keycustody.config.write_text(settings + slow)
    try:
        with running(keycustody):
            client = keycustody.start("keys", "apply", "--socket", keycustody.socket("admin"))
            until_recorded(keycustody, "intent: create slow.v1: RSA_4096 for sign")
            client.kill()
            client.communicate()
            until_recorded(keycustody, "done: create slow.v1: RSA_4096 for sign")
        assert keys(keycustody, "plan") == "Nothing to do: the token has every declared key.\n"
        keycustody.ok("audit", "verify", "--config", keycustody.config)
    finally:
        keycustody.config.write_text(settings)


def until_recorded(command: Command, detail: str) -> None:
    deadline = time.monotonic() + 60
    while detail not in [record["detail"] for record in command.records()]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("line", PAGE)
def test_the_pages_examples_run(keycustody: Command, line: str) -> None:
    keycustody.ok(*shlex.split(line)[1:])


def keycustody_version(sealed: bytes) -> int:
    return envelope.parse(sealed)[0].version


def test_a_restored_token_does_not_unrevoke(keycustody: Command, tmp_path: Path) -> None:
    tokens = keycustody.folder / "var" / "softhsm"
    backup = tmp_path / "backup"
    keys(keycustody, "rotate", "release")
    shutil.copytree(tokens, backup)
    newest = max(int(step) for step in versions_of(keycustody))
    revoke = ("revoke", "release", "--version", str(newest), "--reason", "stolen")
    keys(keycustody, *revoke)
    shutil.rmtree(tokens)
    shutil.copytree(backup, tokens)
    done = keycustody("keys", "plan", "--config", keycustody.config, "--detailed-exitcode")
    assert done.returncode == 2
    assert f"record release.v{newest} as revoked: stolen" in done.stdout.decode()
    assert b"state: " in done.stdout
    with running(keycustody), keycustody.connect("demo") as demo:
        with pytest.raises(KeyRevoked):
            demo.sign("release", b"x", algorithm="ECDSA_SHA_256", version=newest)
    assert "as revoked: stolen" in keys(keycustody, "apply")


def test_a_token_restored_beneath_a_running_agent_does_not_unrevoke(
    keycustody: Command, tmp_path: Path
) -> None:
    tokens, backup = keycustody.folder / "var" / "softhsm", tmp_path / "backup"
    keys(keycustody, "rotate", "release")
    shutil.copytree(tokens, backup)
    newest = max(int(step) for step in versions_of(keycustody))
    revoke = ("revoke", "release", "--version", str(newest), "--reason", "stolen")
    with running(keycustody), keycustody.connect("demo") as demo:
        keycustody.ok("keys", *revoke, "--socket", keycustody.socket("admin"))

        def code() -> str:
            try:
                demo.sign("release", b"x", algorithm="ECDSA_SHA_256", version=newest)
            except KeycustodyError as error:
                return error.code
            return "OK"

        assert code() == "KEY_REVOKED"
        tokens.rename(tmp_path / "away")
        away = time.monotonic() + 3
        while time.monotonic() < away:
            assert code() != "OK"
        shutil.copytree(backup, tokens)
        # Until it was looked at again, and serves another version.
        until(lambda: served(demo) == "OK")
        for _ in range(20):
            assert code() == "KEY_REVOKED"
            time.sleep(0.1)
    assert "as revoked: stolen" in keys(keycustody, "apply")


def served(agent: Agent) -> str:
    """How a signature under whichever version is current ends."""
    try:
        agent.sign("release", b"x", algorithm="ECDSA_SHA_256")
    except KeycustodyError as error:
        return error.code
    return "OK"


def versions_of(command: Command) -> list[str]:
    seen = json.loads((command.folder / "var" / "state" / "seen.json").read_text())
    return [
        label.rpartition(".v")[2] for label in seen["versions"] if label.startswith("release.v")
    ]
