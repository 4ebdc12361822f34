"""The command without an agent: what it loads, and what it says when it cannot go on."""

import os
import subprocess
import sys

import pytest


def run(code: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a program in a fresh interpreter, as a user would, without one's own variables."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYCUSTODY_")}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=False, input=stdin, capture_output=True, env=environment)


def keycustody(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command."""
    return run("from keycustody.cli import main; main()", *arguments, stdin=stdin)


def without(module: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command where a module is not installed."""
    code = f"import sys; sys.modules[{module!r}] = None; from keycustody.cli import main; main()"
    return run(code, *arguments)


def test_help_is_complete_and_loads_nothing_but_click() -> None:
    # What the bare interpreter loads (as hooks of its site-packages may) is not the command's.
    code = (
        "import sys; bare = set(sys.modules); from keycustody.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print(sorted({m.partition('.')[0] for m in set(sys.modules) - bare}"
        " - set(sys.stdlib_module_names)))"
    )

    done = run(code)

    assert done.returncode == 0
    assert done.stdout.endswith(b"\n['click', 'keycustody']\n"), done.stdout.splitlines()[-1]
    for command in (
        "token",
        "check",
        "keys",
        "serve",
        "status",
        "sign",
        "verify",
        "audit",
        "inspect",
    ):
        assert f"\n  {command}".encode() in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["token", "init"],
        ["token", "clear-pin-guard"],
        ["keys", "apply"],
        ["keys", "list"],
        ["keys", "show"],
        ["keys", "csr"],
        ["serve"],
        ["status"],
        ["sign"],
        ["verify"],
        ["encrypt"],
        ["decrypt"],
        ["inspect"],
        ["audit", "verify"],
        ["check"],
    ],
    ids=" ".join,
)
def test_each_command_has_examples(command: list[str]) -> None:
    done = keycustody(*command, "--help")

    assert done.returncode == 0
    assert b"keycustody " + " ".join(command).encode() in done.stdout.partition(b"Example")[2]


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("click", ["--help"], b"keycustody[cli]"),
        ("pydantic", ["serve", "--config", "x.toml"], b"keycustody[agent]"),
        ("structlog", ["audit", "verify", "--file", "x"], b"keycustody[agent]"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_missing_extra_is_named_in_one_line(
    module: str, arguments: list[str], extra: bytes
) -> None:
    done = without(module, *arguments)

    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.startswith(b"keycustody: ")
    assert done.stderr.count(b"\n") == 1
    assert extra in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nope"],
        ["nope"],
        ["sign"],
        ["sign", "release", "file"],
        ["verify", "file", "signature"],
        ["verify", "release", "-", "-"],
        ["keys", "show", "release", "--pem", "--jwk"],
        ["keys", "show", "release", "--version", "0"],
        ["decrypt", "file", "-o", "out"],
        ["decrypt", "file", "-o", "out", "--any", "--context", "a=b"],
        ["token", "init", "--config", "x", "--force"],
        ["token", "init", "--config", "x", "--label", "y"],
        ["audit", "verify"],
        ["check"],
        ["check", "x", "--warn-days", "-1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str]) -> None:
    done = keycustody(*arguments)

    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"keycustody: ")
    assert done.stderr.endswith(b" [INVALID_REQUEST]\n")
    assert done.stderr.count(b"\n") == 1


def test_a_bug_is_reported_without_its_text_and_shown_with_debug() -> None:
    code = (
        "from keycustody.cli import files, main\n"
        "def read(*_): raise ValueError('text that may be a secret')\n"
        "files.read = read\n"
        "main()"
    )

    quiet = run(code, "inspect", "x")
    loud = run(code, "--debug", "inspect", "x")

    assert quiet.returncode == loud.returncode == 1
    assert quiet.stderr.endswith(b" [INTERNAL]\n")
    assert b"ValueError" in quiet.stderr
    assert b"secret" not in quiet.stderr
    assert b"Traceback" not in quiet.stderr
    assert b"Traceback" in loud.stderr


def test_a_reader_that_went_away_is_no_news() -> None:
    code = "import os; from keycustody.cli import main; os.close(r); main(['--help'])"

    done = run(f"import os, sys; r, w = os.pipe(); os.dup2(w, 1); os.close(w)\n{code}")

    assert done.returncode == 141
    assert done.stderr == b""


def test_an_agent_has_its_calls_read_where_they_are_taken() -> None:
    # With a gRPC that has lost the switch, this fails: then the switch goes, and docs/adr/0030.
    code = (
        "import os, sys; from keycustody.cli import main\n"
        "class Seen:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'grpc': print(os.environ['GRPC_EXPERIMENTS'])\n"
        "os.environ.pop('GRPC_EXPERIMENTS', None)\n"
        "sys.meta_path.insert(0, Seen())\n"
        "main(['serve', '--config', '/nowhere.toml'])"
    )

    done = run(code)

    assert done.stdout == b"-event_engine_listener\n"
    assert done.stderr.count(b"\n") == 1, done.stderr
    assert done.stderr.startswith(b"keycustody: /nowhere.toml"), done.stderr
