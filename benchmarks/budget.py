"""Where the time goes

One signature and one session, with one client: the whole as the client sees it, and its pieces as
the agent measures them while it serves. *rest* is the agent's own Python between the request's
arrival and its answer: identity, decision, counters, the record; most of the audit's fsync runs
while the token works. What the pieces leave over is waking processes and gRPC's work beyond a call
that does nothing. What is *alone* was done again and again by one process that did nothing else: so
little do these cost while their code is in the processor's caches.

With sixteen clients both cores are busy, and what counts is processor time: of one call, by who
spent it.
"""

import asyncio
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

import keycustody
from benchmarks import agents, bare
from benchmarks.bulk import CONTEXT, seconds
from benchmarks.operations import OPERATIONS, Bench, server
from benchmarks.results import Results
from keycustody.config import load
from keycustody.custody.access.counters import Counters
from keycustody.custody.access.grants import Ask
from keycustody.custody.access.rules import rules_of
from keycustody.custody.audit import draft
from keycustody.errors import UnknownAlgorithm
from keycustody.formats.audit import encode, line_hash
from keycustody.token.api import KeyRef, Sign

_METRICS = """
[metrics]
socket = "../var/run-budget/metrics/metrics.sock"
"""
#: What is measured: its method's kind of request to the token, and its name in the metrics.
_KINDS = {"P-256": ("Sign", "sign"), "session open": ("GenerateSessionKey", "generate")}

#: The same without the agent's switches (docs/adr/0030).
_AS_IT_COMES = "no-op call to gRPC as it comes"


def measure(results: Results, *, quick: bool) -> None:
    """Both, some rounds."""
    config, path = agents.variant("budget", ('"../var/state"', '"../var/state-budget"'))
    config.write_text(config.read_text() + _METRICS)
    with ExitStack() as stack:
        stack.enter_context(agents.serving())
        bench = Bench(stack, 0.4)
        pid = stack.enter_context(agents.serving(config))
        bench.sockets |= {"budget": path, _AS_IT_COMES: stack.enter_context(server("noop", ""))}
        agent = stack.enter_context(keycustody.connect(socket=str(path)))
        for name in _KINDS:
            for piece, values in _pieces(bench, agent, name, 3 if quick else 5).items():
                results.figure(f"budget: {name}, {piece}", "s", values)
        for who, spent in _processor(bench, psutil.Process(pid), 3 if quick else 5).items():
            results.figure(f"budget: 16 clients, processor time, {who}", "s", spent)
    results.figure("budget: the decision alone", "s", [_decision(config)])
    results.figure("budget: a record alone, without the disk", "s", [_record()])
    results.figure("budget: a pipe and a worker alone", "s", [asyncio.run(_pipe())])


def _pieces(
    bench: Bench, agent: keycustody.Agent, name: str, rounds: int
) -> dict[str, list[float]]:
    kind, operation = _KINDS[name]
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        before = _sums(bench.sockets["budget"])
        whole = bench.call("budget", OPERATIONS[name], 1, 1)["p50"]
        after = _sums(bench.sockets["budget"])

        def mean(metric: str, before=before, after=after) -> float:  # type: ignore[no-untyped-def]
            total, count = (
                b - a for a, b in zip(before.get(metric, (0, 0)), after[metric], strict=True)
            )
            return float(total / count) if count else 0.0

        handled = mean(f'keycustody_request_seconds{{operation="{operation}"}}')
        rest = mean(f'keycustody_request_rest_seconds{{operation="{operation}"}}')
        queue = mean(f'keycustody_token_queue_seconds{{request="{kind}"}}')
        work = mean(f'keycustody_token_work_seconds{{request="{kind}"}}')
        alone = bench.alone(name, 1)["p50"]
        noop = bench.call("no-op", OPERATIONS[name], 1, 1)["p50"]
        pieces = {
            "whole, as bytes": whole,
            "client beyond the bytes": max(0.0, _client(agent, name) - whole),
            "gRPC: a no-op call": noop,
            _AS_IT_COMES: bench.call(_AS_IT_COMES, OPERATIONS[name], 1, 1)["p50"],
            "agent, whole": handled,
            "agent, rest": rest,
            "agent, waiting for the token": handled - rest,
            "token queue": queue,
            "worker and pipe beyond PKCS#11": work - alone,
            "PKCS#11": alone,
            "an audit write": mean("keycustody_audit_write_seconds"),
            "left over": whole - noop - handled,
        }
        for piece, value in pieces.items():
            found.setdefault(piece, []).append(value)
    return found


def _client(agent: keycustody.Agent, name: str) -> float:
    digest = bytes(32)

    def sign() -> object:
        return agent.sign("release", digest, prehashed=True, algorithm="ECDSA_SHA_256")

    def session() -> None:
        agent.session("invoices", context=CONTEXT).close()

    work = sign if name == "P-256" else session
    taken = sorted(seconds(work) for _ in range(300))
    return taken[150]


def _decision(config: Path) -> float:
    rules, counters = rules_of(load(config)), Counters()
    ask = Ask("demo", "sign", "release", {})
    now = time.time()
    return min(seconds(lambda: rules.decide(ask, counters, now)) for _ in range(2000))


def _record() -> float:
    def written() -> None:
        record = draft(
            request="0" * 32, principal="demo", via="socket", operation="sign", rules="0" * 64,
            key="release", version=1, algorithm="ECDSA_SHA_256", items=["0" * 64 + ":OK"],
            grant="benchmarks", microseconds=1000,
        )  # fmt: skip
        line_hash(encode(record))

    return min(seconds(written) for _ in range(2000))


async def _pipe() -> float:
    """A request that a worker refuses before it asks the token."""
    request = Sign(KeyRef("", b"", "sign", "EC_P256"), "none", [bytes(32)])
    taken = []
    async with bare.pool(workers=1) as pool:
        for _ in range(2000):
            before = time.perf_counter()
            try:
                await pool.call(request, timeout=10)
            except UnknownAlgorithm:
                taken.append(time.perf_counter() - before)
    return sorted(taken)[len(taken) // 2]


def _processor(bench: Bench, agent: psutil.Process, rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time for a signature, and for a call that does nothing."""
    ours = psutil.Process().children()
    client = next(child for child in ours if "benchmarks.load" in child.cmdline())
    noop = next(child for child in ours if "benchmarks.noop" in child.cmdline())
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for where, process in (("budget", agent), ("no-op", noop)):
            before = _spent(process, client)
            calls = bench.call(where, OPERATIONS["P-256"], 16, 1)["rate"] * bench.seconds
            for who, spent in _spent(process, client).items():
                what = "a signature" if where == "budget" else "a no-op call"
                found.setdefault(f"{what}: {who}", []).append((spent - before[who]) / calls)
    return found


def _spent(process: psutil.Process, client: psutil.Process) -> dict[str, float]:
    threads = {one.id: one.user_time + one.system_time for one in process.threads()}
    loop = threads.pop(process.pid)
    return {
        "the server's loop": loop,
        "the server's other threads": sum(threads.values()),
        "workers": sum(map(_time, process.children())),
        "the client": _time(client),
    }


def _time(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _sums(agent: Path) -> dict[str, tuple[float, float]]:
    """Sum and count of each histogram."""
    path = agent.parents[1] / "metrics" / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(str(path))
        connected.sendall(b"GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n")
        text = b"".join(iter(lambda: connected.recv(65536), b"")).decode()
    values = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("keycustody")
    )
    return {
        name.replace("_sum", ""): (float(value), float(values[name.replace("_sum", "_count")]))
        for name, value in values.items()
        if "_sum" in name
    }
