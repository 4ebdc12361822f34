"""Each runbook, and docs/backup.md, does what it says: its commands run as they stand, in order.

They run in a folder such as docs/runbooks/README.md describes, with an agent that serves and a
backup to go back to. systemd is not there: `systemctl` is a small script that starts, stops and
reloads the same command as deploy/keycustody.service does.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command import PROJECT

RUNBOOKS = PROJECT / "docs" / "runbooks"
BACKUP = PROJECT / "docs" / "backup.md"

#: What a page finds besides the folder that all find: a shell script, run before its first step.
BEFORE = {
    # The machine is lost: no settings, no state, no token, no PIN.
    "restore.md": 'systemctl stop keycustody; rm -r hsm_config/* "$STATE" "$TOKENS" var/pin',
    "lost-token.md": 'rm -r "$TOKENS"/*',
    # A listener with TLS, whose certificate has ten days left.
    "certificate-expiry.md": """\
mkdir pki
new() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -batch "$@"; }
new -subj /CN=authority -addext keyUsage=keyCertSign,cRLSign -days 900 \\
    -keyout pki/authority.key -out pki/authority.pem
new -subj /CN=localhost -addext subjectAltName=DNS:localhost -days 10 -CA pki/authority.pem \\
    -CAkey pki/authority.key -keyout pki/agent.key -out pki/agent.pem
cat >>"$KEYCUSTODY_CONFIG" <<'END'
[tls]
listen = ["unix:../var/tls.sock"]
certificate = "../pki/agent.pem"
key = "../pki/agent.key"
client_ca = "../pki/authority.pem"
END
systemctl stop keycustody; systemctl start keycustody
wait-ready
""",
}

SYSTEMCTL = """\
#!/bin/bash
# As deploy/keycustody.service: $1 is start, stop or reload; $2 is keycustody.
pid=$(cat var/agent.pid 2>/dev/null)
case $1 in
start) setsid keycustody serve >>var/agent.log 2>&1 & echo $! >var/agent.pid ;;
stop) kill "$pid" && while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done ;;
reload) kill -HUP "$pid" ;;
*) exit 2 ;;
esac
"""

WAIT_READY = """\
#!/bin/sh
until keycustody status >/dev/null 2>&1; do
    kill -0 "$(cat var/agent.pid)" || exit 1
    sleep 0.1
done
"""

#: What is there before the day: an agent, a file of each kind, a backup, a PIN in the safe.
PREPARED = """\
systemctl start keycustody
wait-ready
mkdir data && echo 'an invoice' >data/invoice.txt
keycustody encrypt invoices data/invoice.txt -o data/invoice.kc --context tenant=42
keycustody sign release data/invoice.txt -o data/invoice.sig
keycustody keys show release --pem >data/release.pem
# So that the old signature is of an older version.
keycustody keys rotate release
install -d -m 700 "$SAFE" "$HEADS" && cp -p var/pin "$SAFE/pin"
"""


def commands(page: Path) -> str:
    """The page's commands as one script. Blocks of a numbered step are indented."""
    blocks = re.findall(r"^( *)```bash\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return "".join(re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in blocks)


def script(*parts: str) -> str:
    """One shell that stops at the first command that fails, and leaves no agent behind."""
    last = "kill $(cat var/agent.pid) $(jobs -p) 2>/dev/null || true"
    return "\n".join(("set -euo pipefail", f"trap '{last}' EXIT", *parts))


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a prepared folder; fail with what it said, and after which command."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYCUSTODY_")}
    done = subprocess.run(
        ["bash", "-x", "-c", text],
        check=False,
        cwd=folder,
        env=environment | {"PATH": f"{folder / '.venv' / 'bin'}:{environment['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    log = folder / "var" / "agent.log"
    said = done.stdout + done.stderr + (log.read_text() if log.exists() else "")
    assert done.returncode == 0, said
    assert "Traceback" not in said
    return done


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone's folders with a token that has its keys."""
    folder = tmp_path_factory.mktemp("rb")
    for name in ("hsm_config", "softhsm", "tools"):
        shutil.copytree(PROJECT / name, folder / name)
    config = folder / "hsm_config" / "softhsm.toml"
    text = config.read_text()
    # Generating RSA keys takes long, and is not what is tested here.
    for name in ("archive", "mail"):
        text = re.sub(rf"\[keys\.{name}\]\n(?:.+\n)+", "", text)
    text = text.replace('"archive", "hpke", "mail"', '"hpke"')
    config.write_text(text.replace("scan_seconds = 15.0", "scan_seconds = 1.0"))
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, module in (("python", ""), ("keycustody", "-m keycustody.cli ")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n')
    (programs / "systemctl").write_text(SYSTEMCTL)
    (programs / "wait-ready").write_text(WAIT_READY)
    for program in programs.iterdir():
        program.chmod(0o755)
    names = commands(RUNBOOKS / "README.md")
    run(
        folder,
        script(
            names,
            "softhsm/setup.sh var/softhsm",
            "keycustody token init",
            "keycustody keys apply",
            PREPARED,
            commands(BACKUP),
            "systemctl stop keycustody",
        ),
    )
    return folder


@pytest.fixture
def folder(provisioned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it for one page."""
    made = tmp_path_factory.mktemp("rb") / "c"
    shutil.copytree(provisioned, made, symlinks=True, ignore=shutil.ignore_patterns("run"))
    return made


@pytest.mark.parametrize("page", sorted(path.name for path in RUNBOOKS.glob("[a-z]*.md")))
def test_a_runbook_does_what_it_says(folder: Path, page: str) -> None:
    run(
        folder,
        script(
            "softhsm/setup.sh var/softhsm",
            commands(RUNBOOKS / "README.md"),
            "systemctl start keycustody",
            "wait-ready",
            BEFORE.get(page, ""),
            commands(RUNBOOKS / page),
        ),
    )


def test_every_page_has_steps_and_commands() -> None:
    for page in RUNBOOKS.glob("[a-z]*.md"):
        assert commands(page).count("keycustody ") > 2, page.name
        steps = [int(n) for n in re.findall(r"^(\d+)\. \*\*", page.read_text(), re.MULTILINE)]
        assert steps == list(range(1, len(steps) + 1)), page.name
        assert re.search(r"\*[Ss]top\*|\*\*Stop", page.read_text()), page.name


@pytest.mark.parametrize("page", [BACKUP, *RUNBOOKS.glob("*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link
