"""The client needs its base dependencies, and nothing else of ours or others'."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

#: What only the command line or the agent may load. grpc itself imports grpc_health and
#: grpc_reflection where they are installed, so these two say nothing.
FOREIGN = [
    "PyKCS11",
    "click",
    "msgspec",
    "pkcs11",
    "pydantic",
    "rich",
    "structlog",
    "uvloop",
    *(f"keycustody.{part}" for part in ("cli", "config", "custody", "daemon", "service", "token")),
]

USE_CLIENT = """
import sys
import keycustody
import asyncio
import keycustody.aio
try:
    asyncio.run(keycustody.aio.connect("/nowhere/agent.sock").sign("release", b"x"))
except keycustody.KeycustodyError as error:
    assert error.code == "AGENT_UNREACHABLE", error.code
keycustody.connect, keycustody.Agent, keycustody.Session, keycustody.ANY
with keycustody.connect(socket="/nowhere/agent.sock") as agent:
    try:
        agent.sign("release", b"x")
    except keycustody.KeycustodyError as error:
        assert error.code == "AGENT_UNREACHABLE", error.code
loaded = {name.partition(".")[0] for name in sys.modules} | set(sys.modules)
print(*sorted(loaded & set(sys.argv[1:])))
"""


def loaded_by(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *FOREIGN],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_importing_and_using_the_client_loads_nothing_of_the_agent() -> None:
    assert loaded_by(USE_CLIENT) == ""


def test_the_bare_import_loads_not_even_grpc() -> None:
    code = "import sys, keycustody; print(*(set(sys.modules) & {'grpc', 'cryptography'}))"
    assert loaded_by(code) == ""


def test_a_worker_loads_no_grpc() -> None:
    code = """
        import sys
        import keycustody.token.worker, keycustody.token.hsm
        print(*(set(sys.modules) & {'grpc', 'google.protobuf', 'pydantic', 'click'}))
    """
    assert loaded_by(code) == ""


@pytest.mark.slow
def test_a_plain_install_gives_a_client_and_says_what_the_rest_needs(tmp_path: Path) -> None:
    """`pip install .` without extras, in an environment of its own."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    lock = PROJECT / "requirements" / "client.lock"
    subprocess.run([*pip, "--require-hashes", "-r", lock], check=True)
    subprocess.run([*pip, "--no-deps", PROJECT], check=True, cwd=tmp_path)
    done = subprocess.run(
        [python, "-c", USE_CLIENT, *FOREIGN], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == ""
    refused = subprocess.run(
        [environment / "bin" / "keycustody", "status"], check=False, capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "keycustody[cli]" in refused.stderr
    assert refused.stderr.count("\n") == 1
