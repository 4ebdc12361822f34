"""Growth

How cost grows with everything but its own size. A line that stays flat is what is wanted, except
where the work itself grows (messages, files, verifying a longer log, scanning a fuller token).
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import keycustody
from benchmarks import agents
from benchmarks.bulk import OURS, ours, seconds
from benchmarks.children import asked
from benchmarks.operations import OPERATIONS, server
from benchmarks.peers import aes_gcm
from benchmarks.results import Curve, Results
from keycustody.custody.audit import Journal
from keycustody.formats import audit

Points = list[tuple[float, float]]
CLIENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
KEYS = (10, 100, 1000, 5000)
RECORDS = (0, 1_000, 10_000, 100_000, 1_000_000)
GRANTS = (10, 100, 1000, 10_000)
MESSAGES = tuple(4**power for power in range(2, 14))  # 16 B to 64 MiB
FILES = (2**10, 2**20, 2**24, 2**28, 2**30, 10 * 2**30)


def measure(results: Results, *, quick: bool) -> None:
    """One curve for each thing that grows."""
    keep = 3 if quick else None
    with agents.serving(), keycustody.connect(socket=str(agents.SOCKET)) as agent:
        _clients(results, CLIENTS[:-2:2] if quick else CLIENTS)
        _messages(results, agent, MESSAGES[::3] if quick else MESSAGES)
    _files(results, FILES[:keep])
    _records(results, RECORDS[:keep])
    _grants(results, GRANTS[:keep])
    _keys(results, KEYS[: 2 if quick else None])


def _clients(results: Results, sizes: tuple[int, ...]) -> None:
    rate: dict[str, Points] = {"signatures": [], "no-op calls": []}
    p99: dict[str, Points] = {"signatures": [], "no-op calls": []}
    request = OPERATIONS["P-256"]
    with ExitStack() as stack:
        load = stack.enter_context(asked("load"))
        sockets = {"signatures": agents.SOCKET, "no-op calls": stack.enter_context(server("noop"))}
        for clients in sizes:
            for what, socket in sockets.items():
                found = load(
                    {
                        "socket": str(socket),
                        "method": request.method
                        if what == "signatures"
                        else "/benchmarks.Noop/Call",
                        "request": request.request(1).SerializeToString().hex(),
                        "clients": clients,
                        "seconds": 0.6,
                    }
                )
                rate[what].append((clients, found["rate"]))
                p99[what].append((clients, found["p99"] * 1e3))
    results.curves["growth: rate over clients"] = Curve("clients", "calls a second", rate)
    results.curves["growth: p99 over clients"] = Curve("clients", "99th percentile, ms", p99)


def _messages(results: Results, agent: keycustody.Agent, sizes: tuple[int, ...]) -> None:
    everyone = {OURS: ours(agent), "AES-256-GCM alone": aes_gcm()}
    points: dict[str, Points] = {name: [] for name in everyone}
    for size in sizes:
        data = os.urandom(size)
        count = max(1, min(2000, 2**25 // (size + 2**14)))
        for name, peer in everyone.items():
            peer.encrypt(data)
            points[name].append((size, _best(peer.encrypt, data, count) * 1e6))
    results.curves["growth: encryption over message size"] = Curve("bytes", "us a message", points)


def _files(results: Results, sizes: tuple[int, ...]) -> None:
    """In a process of their own: how much memory it needed is part of the answer."""
    took: dict[str, Points] = {"encrypt": [], "decrypt": []}
    memory: dict[str, Points] = {"encrypt": [], "decrypt": []}
    plain, sealed, back = (agents.FOLDER / name for name in ("plain", "sealed", "back"))
    with agents.serving():
        for size in sizes:
            block = os.urandom(min(size, 2**20))
            with plain.open("wb") as stream:
                for _ in range(size // len(block)):
                    stream.write(block)
            for way, source, target in (("encrypt", plain, sealed), ("decrypt", sealed, back)):
                with asked("one_file") as ask:
                    found = ask({"way": way, "source": str(source), "target": str(target)})
                took[way].append((size, found["seconds"]))
                memory[way].append((size, found["grown"] / 2**20))
                source.unlink()  # before all of it was written to the disk
            assert back.stat().st_size == size
            back.unlink()
    results.curves["growth: time over file size"] = Curve("bytes", "seconds", took)
    results.curves["growth: memory over file size"] = Curve("bytes", "MiB beyond the start", memory)
    most = [value for points in memory.values() for _, value in points]
    results.figure("growth: memory for a file, at most", "MiB", [max(most)])
    results.ratio("growth: memory for a file / 64 MiB", [max(most)], [64.0], at_most=1.0)


def _records(results: Results, counts: tuple[int, ...]) -> None:
    start: Points = []
    verify: Points = []
    append: Points = []
    for count in counts:
        folder = agents.FOLDER / "var" / f"state-{count}"
        folder.mkdir(mode=0o700)
        asyncio.run(_filled(folder, count))
        config, socket = agents.variant(f"log{count}", ('"../var/state"', f'"{folder}"'))
        started = time.perf_counter()
        with agents.serving(config), keycustody.connect(socket=str(socket)) as agent:
            start.append((count + 1, time.perf_counter() - started))
            append.append((count + 1, _p50(agent) * 1e6))
        command = [*agents.KEYCUSTODY, "audit", "verify", "--config", str(config)]
        verify.append((count + 1, _quiet(command)))
    curves = {
        "growth: start over audit records": ("seconds", {"start": start, "audit verify": verify}),
        "growth: signature over audit records": ("p50, us", {"signature": append}),
    }
    for name, (unit, points) in curves.items():
        results.curves[name] = Curve("records", unit, points)


async def _filled(folder: Path, count: int) -> None:
    """A journal of that many records, as an agent that served as many requests has."""
    record = audit.AuditRecord(
        v=1,
        seq=0,
        time="",
        request="0" * 32,
        principal="demo",
        via="socket",
        operation="sign",
        key="release",
        version=1,
        algorithm="ECDSA_SHA_256",
        context={},
        items=["0" * 64],
        rules="0" * 64,
        grant="demo-all",
        result="OK",
        detail="",
        count=1,
        microseconds=500,
        prev="",
    )
    async with Journal(folder) as journal:
        for at in range(0, count, 10_000):
            await asyncio.gather(*(journal.append(record) for _ in range(min(10_000, count - at))))


def _grants(results: Results, counts: tuple[int, ...]) -> None:
    points: Points = []
    for count in counts:
        config, socket = agents.variant(f"grants{count}")
        text = config.read_text()
        first = text.index("[[grants]]")
        # All of them name the principal, and come before the one that allows it.
        many = "".join(
            f'[[grants]]\nname = "g{number}"\nprincipals = ["demo"]\nkeys = ["tokens"]\n'
            f'operations = ["sign"]\n'
            for number in range(count)
        )
        config.write_text(text[:first] + many + text[first:])
        state = f'"../var/state-grants{count}"'
        config.write_text(config.read_text().replace('"../var/state"', state))
        with agents.serving(config), keycustody.connect(socket=str(socket)) as agent:
            points.append((count, _p50(agent) * 1e6))
    results.curves["growth: signature over grants"] = Curve("grants", "p50, us", {"sign": points})


def _keys(results: Results, counts: tuple[int, ...]) -> None:
    """Keys of somebody else, made by `raw`, beside ours: what the agent has to look past."""
    start: Points = []
    sign: Points = []
    arguments = (agents.MODULE, agents.LABEL, str(agents.PIN))
    there = 0
    for count in counts:
        with asked("raw", *arguments, environment=agents.environment()) as ask:
            ask({"make": count - there})
        there = count
        started = time.perf_counter()
        with agents.serving(), keycustody.connect(socket=str(agents.SOCKET)) as agent:
            agent.sign("release", bytes(32), prehashed=True)
            start.append((count, time.perf_counter() - started))
            sign.append((count, _p50(agent) * 1e6))
    curves = {
        "growth: start to first signature over keys": ("seconds", {"first signature": start}),
        "growth: signature over keys": ("p50, us", {"signature": sign}),
    }
    for name, (unit, points) in curves.items():
        results.curves[name] = Curve("keys on the token", unit, points)


def _p50(agent: keycustody.Agent, calls: int = 300) -> float:
    digest = bytes(32)
    taken = sorted(
        seconds(lambda: agent.sign("release", digest, prehashed=True)) for _ in range(calls)
    )
    return taken[calls // 2]


def _best(work: Callable[[bytes], bytes], data: bytes, count: int) -> float:
    """Seconds for one, the best of three tries of many."""
    return min(seconds(lambda: [work(data) for _ in range(count)]) for _ in range(3)) / count


def _quiet(command: list[str]) -> float:
    """Run it; the seconds that it took."""
    return seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
