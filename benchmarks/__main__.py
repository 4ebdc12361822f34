"""What a signature, a batch, the audit and a file cost, as ratios measured in interleaved rounds.

Runs the shipped command on a throwaway token below var/bench. Prints a table, and writes the same
figures to var/bench/figures.json.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc

import keycustody
from benchmarks.noop import METHOD

PROJECT = Path(__file__).parents[1]
FOLDER = PROJECT / "var" / "bench"
CONFIG = FOLDER / "hsm_config" / "softhsm.toml"
SOCKET = FOLDER / "var" / "run" / "demo" / "agent.sock"
MODULE, LABEL = "/usr/lib/softhsm/libsofthsm2.so", "keycustody-dev"

ROUNDS = 15
CALLS = 200  # of one kind in a round
BATCH = 64
FILE_MIB = 256
FILES = ("plain", "copy", "sealed", "back")
FILE_ROUNDS = 9
CLIENTS = 16
LOAD_ROUNDS, LOAD_SECONDS = 9, 2
MEMORY = "/dev/shm"  # noqa: S108 (a file system in memory; the folder in it is made safely)


def main() -> None:
    """Measure, print, write."""
    with ExitStack() as stack:
        stack.enter_context(_agent())
        figures = stack.enter_context(_measured())
        agent = stack.enter_context(keycustody.connect(socket=str(SOCKET)))
        figures |= _signatures(agent)
        figures |= _batches(agent)
        figures |= _group_commit()
        figures |= _files(agent)
    for name in FILES:
        (FOLDER / name).unlink()


def _signatures(agent: keycustody.Agent) -> dict[str, float]:
    digest = os.urandom(32)
    with _noop() as noop:

        def sign() -> object:
            return agent.sign("release", digest, prehashed=True)

        pairs = [(_p50(noop), _p50(sign)) for _ in range(ROUNDS)]
    floor, ours = (statistics.median(values) * 1e6 for values in zip(*pairs, strict=True))
    return {
        "no-op call, p50 us": floor,
        "signature P-256, p50 us": ours,
        "signature / no-op": statistics.median(ours / floor for floor, ours in pairs),
    }


def _batches(agent: keycustody.Agent) -> dict[str, float]:
    digests = [os.urandom(32) for _ in range(BATCH)]
    with _raw_signing() as raw:
        pairs = []
        for _ in range(ROUNDS):
            base = BATCH * 10 / raw(BATCH * 10)
            started = time.perf_counter()
            for _ in range(10):
                agent.sign("release", digests, prehashed=True)
            pairs.append((base, BATCH * 10 / (time.perf_counter() - started)))
    base, ours = (statistics.median(values) for values in zip(*pairs, strict=True))
    return {
        "python-pkcs11 alone, signatures/s": base,
        f"batches of {BATCH}, signatures/s": ours,
        "batch / python-pkcs11": statistics.median(ours / base for base, ours in pairs),
    }


def _group_commit() -> dict[str, float]:
    """Signing by many clients, with the audit journal on disk and in memory."""
    rates: dict[str, list[float]] = {"disk": [], "memory": []}
    with (
        tempfile.TemporaryDirectory(prefix="keycustody-bench-", dir=MEMORY) as state,
        _agent_in_memory(Path(state)) as other,
        _load(SOCKET) as on_disk,
        _load(other) as in_memory,
    ):
        loads = {"disk": on_disk, "memory": in_memory}
        for load in loads.values():
            load(LOAD_SECONDS)
        for _ in range(LOAD_ROUNDS):
            for place, load in loads.items():
                rates[place].append(load(LOAD_SECONDS))
    figures = {
        f"{CLIENTS} clients, audit in memory, signatures/s": statistics.median(rates["memory"]),
        f"{CLIENTS} clients, audit on disk, signatures/s": statistics.median(rates["disk"]),
    }
    ratios = (a / b for a, b in zip(rates["disk"], rates["memory"], strict=True))
    return figures | {"audit on disk / in memory": statistics.median(ratios)}


def _files(agent: keycustody.Agent) -> dict[str, float]:
    plain, copy, sealed, back = (FOLDER / name for name in FILES)
    with plain.open("wb") as stream:
        for _ in range(FILE_MIB):
            stream.write(os.urandom(2**20))

    def encrypt() -> None:
        with agent.session("invoices", context={"tenant": "42"}) as session:
            session.encrypt_file(plain, sealed)

    def decrypt() -> None:
        agent.decrypt_file(sealed, back, key="invoices", context={"tenant": "42"})

    kinds: dict[str, Callable[[], object]] = {
        "copy": lambda: _copy(plain, copy),
        "encrypt": encrypt,
        "decrypt": decrypt,
    }
    for work in kinds.values():
        work()
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(FILE_ROUNDS):
        for kind, work in kinds.items():
            rates[kind].append(FILE_MIB / _seconds(work))
    figures = {f"{kind} a file, MiB/s": statistics.median(rates[kind]) for kind in kinds}
    for kind in ("encrypt", "decrypt"):
        ratios = (a / b for a, b in zip(rates[kind], rates["copy"], strict=True))
        figures[f"{kind} / copy"] = statistics.median(ratios)
    return figures


def _copy(source: Path, target: Path) -> None:
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        while block := reader.read(2**20):
            writer.write(block)


def _p50(call: Callable[[], object]) -> float:
    return statistics.median(_seconds(call) for _ in range(CALLS))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@contextmanager
def _measured() -> Iterator[dict[str, float]]:
    """Print and write the figures that the block fills in."""
    figures: dict[str, float] = {}
    yield figures
    width = max(map(len, figures))
    for name, value in figures.items():
        sys.stdout.write(f"{name:<{width}}  {value:>10,.{2 if '/ ' in name else 0}f}\n")
    (FOLDER / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")


@contextmanager
def _agent() -> Iterator[None]:
    """Provision a throwaway token and serve it with the shipped settings."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    CONFIG.parent.mkdir(parents=True)
    for name in ("softhsm.toml", "crypto_policy.toml"):
        shutil.copy(PROJECT / "hsm_config" / name, CONFIG.parent)
    subprocess.run([PROJECT / "softhsm" / "setup.sh", FOLDER / "var" / "softhsm"], check=True)
    command = [sys.executable, "-m", "keycustody.cli"]
    subprocess.run([*command, "token", "init", "--config", CONFIG], check=True)
    subprocess.run([*command, "keys", "apply", "--config", CONFIG], check=True)
    with _child([*command, "serve", "--config", str(CONFIG)], "ready"):
        yield


@contextmanager
def _agent_in_memory(state: Path) -> Iterator[Path]:
    """Serve the same token with the agent's state in memory; gives the socket."""
    config = CONFIG.with_name("memory.toml")
    text = CONFIG.read_text().replace('"../var/state"', f'"{state}"')
    config.write_text(text.replace('"../var/run"', '"../var/run2"'))
    command = [sys.executable, "-m", "keycustody.cli", "serve", "--config", str(config)]
    with _child(command, "ready"):
        yield FOLDER / "var" / "run2" / "demo" / "agent.sock"


@contextmanager
def _load(socket: Path) -> Iterator[Callable[[float], float]]:
    command = [sys.executable, "-m", "benchmarks.load", str(socket), str(CLIENTS)]
    with _asked(command) as rate:
        yield rate


@contextmanager
def _noop() -> Iterator[Callable[[], object]]:
    path = FOLDER / "noop.sock"
    with (
        _child([sys.executable, "-m", "benchmarks.noop", str(path)], "ready"),
        grpc.insecure_channel(f"unix:{path}") as channel,
    ):
        method = channel.unary_unary(METHOD)
        yield lambda: method(b"x" * 50, timeout=10)


@contextmanager
def _raw_signing() -> Iterator[Callable[[float], float]]:
    os.environ["SOFTHSM2_CONF"] = str(FOLDER / "var" / "softhsm" / "softhsm2.conf")
    command = [sys.executable, "-m", "benchmarks.raw_signing", MODULE, LABEL]
    with _asked([*command, str(FOLDER / "var" / "pin"), "release.v1"]) as seconds:
        yield seconds


@contextmanager
def _asked(command: list[str]) -> Iterator[Callable[[float], float]]:
    """Run a program that answers each number on its stdin with one."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    requests, answers = child.stdin, child.stdout

    def ask(number: float) -> float:
        requests.write(f"{number}\n")
        requests.flush()
        return float(answers.readline())

    with child:
        yield ask
        requests.close()


@contextmanager
def _child(command: list[str], ready: str) -> Iterator[None]:
    """Run a program for the length of the block, from when it says that it is ready."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert child.stdout is not None
    try:
        for line in child.stdout:
            if ready in line.lower():
                break
        else:
            sys.exit(f"{' '.join(command)} ended before it was ready")
        yield
    finally:
        child.terminate()
        child.wait(timeout=30)


if __name__ == "__main__":
    main()
