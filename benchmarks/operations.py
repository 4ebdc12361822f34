"""Operations

Each operation through the agent as it ships (policy, metrics, audit on disk, worker processes),
beside the same bytes to a gRPC server that does nothing, and the token alone in one and two
processes. The **floor** is the sum of the last two: what any agent behind gRPC has to pay. For many
clients the floor's rate is that of one no-op call and one operation after another, at the rates
that both reach with as many clients (the token alone: with one process or, from two clients on,
two). **Without custody** is what P-256 takes when the same server hands requests to the same
workers and does nothing else (`benchmarks/bare.py`): no identity, decision, record or metrics.
Batches of 8 and 64 are asked for by four clients, if nothing else is said, those of 512 by two.

Another way to share a token among processes is p11-kit's remote module, which has neither policy
nor audit nor supervision. It is asked by one process, beside one client of ours, and by two, beside
sixteen.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.message import Message

from benchmarks import agents, noop
from benchmarks.children import Ask, asked, running
from benchmarks.results import Results, added, interleaved
from keycustody.cli.agent import SWITCHES
from keycustody.v1.agreement_service_pb2 import AgreeRequest, AgreeResponse
from keycustody.v1.session_key_service_pb2 import (
    GenerateSessionKeyRequest,
    GenerateSessionKeyResponse,
    UnwrapSessionKeysRequest,
    UnwrapSessionKeysResponse,
)
from keycustody.v1.signing_service_pb2 import SignItem, SignRequest, SignResponse

CLIENTS = (1, 4, 16, 64)
#: Items of a batch, and how many clients ask for such batches: enough that no worker waits for what
#: has yet to be asked.
BATCHES = {8: 4, 64: 4, 512: 2}
#: Of the two, one client against the floor: with the audit on disk, and in memory.
ONE_DISK, ONE_MEMORY = 1.8, 1.5
#: With many clients: the least part of the floor's throughput.
MANY = 0.8
#: The place of the agent that has no custody.
BARE = "without custody"
#: Batches of 64: the least part of what two processes alone do.
BATCHED = 0.8


@dataclass(frozen=True)
class Operation:
    """How to ask for it, a number of items at once, and how to see that it was done."""

    method: str
    request: Callable[[int], Message]
    response: type[Message]

    def succeeded(self, data: bytes) -> bool:
        """Whether no item of the response is an error."""
        response: Any = self.response.FromString(data)
        return not any(one.HasField("error") for one in getattr(response, "results", ()))


def _sign(key: str, algorithm: str, *, message: bool = False) -> Operation:
    data = os.urandom(32)
    item = SignItem(message=data) if message else SignItem(digest=data)
    return Operation(
        "/keycustody.v1.SigningService/Sign",
        lambda items: SignRequest(key=key, algorithm=algorithm, items=[item] * items),
        SignResponse,
    )


def _generate(items: int) -> GenerateSessionKeyRequest:
    return GenerateSessionKeyRequest(
        key="invoices", suite=1, context={"tenant": "42"}, client_point=_POINT
    )


_POINT = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
)
OPERATIONS = {
    "P-256": _sign("release", "ECDSA_SHA_256"),
    "Ed25519": _sign("tokens", "ED25519", message=True),
    "RSA-2048": _sign("rsa2048", "RSA_PKCS1_SHA_256"),
    "RSA-3072": _sign("archive", "RSA_PKCS1_SHA_256"),
    "ECDH": Operation(
        "/keycustody.v1.AgreementService/Agree",
        lambda items: AgreeRequest(key="hpke", peer_points=[_POINT] * items),
        AgreeResponse,
    ),
    "session open": Operation(
        "/keycustody.v1.SessionKeyService/GenerateSessionKey", _generate, GenerateSessionKeyResponse
    ),
}


def unwrapping(wrapped: bytes) -> Operation:
    """Unwrap one session key, as often as there are items."""
    return Operation(
        "/keycustody.v1.SessionKeyService/UnwrapSessionKeys",
        lambda items: UnwrapSessionKeysRequest(
            key="invoices",
            version=1,
            suite=1,
            context={"tenant": "42"},
            client_point=_POINT,
            wrapped_keys=[wrapped] * items,
        ),
        UnwrapSessionKeysResponse,
    )


class Bench:
    """The agents, the no-op server, the token alone, and who asks them."""

    def __init__(self, stack: ExitStack, seconds: float) -> None:
        self.seconds = seconds
        state = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="keycustody-bench-", dir=agents.MEMORY)
        )
        self.sockets = {
            "on disk": agents.SOCKET,
            "in memory": stack.enter_context(agents.in_memory(Path(state))),
            "no-op": stack.enter_context(server("noop")),
        }
        self.load: Ask = stack.enter_context(asked("load"))
        ways = {
            "alone": (agents.MODULE, agents.environment()),
            "p11-kit": stack.enter_context(agents.p11_kit()),
        }
        self._raw = {
            way: [
                stack.enter_context(
                    asked("raw", how[0], agents.LABEL, str(agents.PIN), environment=how[1])
                )
                for _ in range(2)
            ]
            for way, how in ways.items()
            if how is not None
        }
        first = self.call("on disk", OPERATIONS["session open"], 1, 1, seconds=0.01)
        wrapped = GenerateSessionKeyResponse.FromString(bytes.fromhex(first["response"]))
        self.operations = OPERATIONS | {"unwrap": unwrapping(wrapped.wrapped_key)}

    def call(
        self,
        where: str,
        operation: Operation,
        clients: int,
        items: int,
        *,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """Have clients call for a while; see `benchmarks.load`."""
        found: dict[str, Any] = self.load(
            {
                "socket": str(self.sockets[where]),
                "method": noop.METHOD if where.startswith("no-op") else operation.method,
                "request": operation.request(items).SerializeToString().hex(),
                "clients": clients,
                "seconds": seconds or self.seconds,
            }
        )
        assert where.startswith("no-op") or operation.succeeded(bytes.fromhex(found["response"]))
        return found

    @contextmanager
    def bare(self) -> Iterator[None]:
        """Have an agent without custody beside the others for the length of the block."""
        with server("bare") as self.sockets[BARE]:
            yield
        del self.sockets[BARE]

    def alone(self, name: str, processes: int, way: str = "alone") -> dict[str, float]:
        """Have the token do it without an agent."""
        question = {"operation": name, "seconds": self.seconds}
        if processes == 1:
            answer: dict[str, float] = self._raw[way][0](question)
            return answer
        return _both(self._raw[way], question)

    def lacks_p11_kit(self, name: str) -> str:
        """Return why p11-kit's remote module does not do it; nothing if it does."""
        if "p11-kit" not in self._raw:
            return "not installed (p11-kit, p11-kit-modules)"
        answer = self._raw["p11-kit"][0]({"operation": name, "seconds": 0.01})
        return f"refused with {answer['refused']}" if "refused" in answer else ""


def _both(raw: list[Ask], question: dict[str, Any]) -> dict[str, float]:
    with ThreadPoolExecutor(len(raw)) as pool:
        answers = list(pool.map(lambda ask: ask(question), raw))
    return {
        "rate": sum(answer["rate"] for answer in answers),
        "p50": max(answer["p50"] for answer in answers),
    }


@contextmanager
def server(module: str, switches: str = SWITCHES) -> Iterator[Path]:
    """Run `benchmarks.noop`, whose calls do nothing, or `benchmarks.bare`, with gRPC set up as in
    the agent; gives the socket."""
    path = agents.FOLDER / f"{module}{switches}.sock"
    command = [sys.executable, "-m", f"benchmarks.{module}", str(path)]
    environment = {"GRPC_EXPERIMENTS": switches, "GRPC_ENABLE_FORK_SUPPORT": "0"}
    with running(command, "ready", os.environ | environment):
        yield path


def measure(results: Results, *, quick: bool) -> None:
    """One at a time with 1 to 64 clients, and in batches."""
    with ExitStack() as stack:
        stack.enter_context(agents.serving())
        bench = Bench(stack, 0.25 if quick else 0.3)
        names = ["P-256", "session open"] if quick else list(bench.operations)
        for name in names:
            with bench.bare() if name == "P-256" else nullcontext():
                for clients in (1, 16) if quick else CLIENTS:
                    rounds = 3 if quick or clients == 4 else 4
                    _one_by_one(results, bench, name, clients, rounds)
            _beside_p11_kit(results, bench, name)
        for name in [name for name in names if name != "session open"]:
            _batches(results, bench, name, (64,) if quick else BATCHES, 3 if quick else 4)


def _one_by_one(results: Results, bench: Bench, name: str, clients: int, rounds: int) -> None:
    operation = bench.operations[name]
    p50s: dict[str, list[float]] = {place: [] for place in (*bench.sockets, "alone")}
    rates: dict[str, list[float]] = {place: [] for place in p50s}

    def called(where: str) -> Callable[[], float]:
        def work() -> float:
            found = bench.call(where, operation, clients, 1)
            p50s[where].append(found["p50"])
            rates[where].append(found["rate"])
            return 0.0

        return work

    def alone() -> float:
        found = bench.alone(name, min(clients, 2))
        p50s["alone"].append(found["p50"])
        rates["alone"].append(found["rate"])
        return 0.0

    works = {place: called(place) for place in bench.sockets} | {"alone": alone}
    interleaved(works, rounds)
    what = f"operations: {name}, {clients} clients"
    for place, values in p50s.items():
        results.figure(f"{what}, {place}, p50", "s", values)
        results.figure(f"{what}, {place}, rate", "/s", rates[place])
    if clients == 1:
        floor = added(p50s["no-op"], p50s["alone"])
        results.ratio(f"{what}: p50 / floor", p50s["on disk"], floor, at_most=ONE_DISK)
        results.ratio(
            f"{what}, audit in memory: p50 / floor", p50s["in memory"], floor, at_most=ONE_MEMORY
        )
        if BARE in p50s:
            results.ratio(f"{what}, {BARE}: p50 / floor", p50s[BARE], floor)
    else:
        floor = [1 / (1 / a + 1 / b) for a, b in zip(rates["no-op"], rates["alone"], strict=True)]
        target = MANY if clients in {16, 64} else None
        results.ratio(f"{what}: rate / floor", rates["on disk"], floor, at_least=target)
        if BARE in rates:
            results.ratio(f"{what}, {BARE}: rate / floor", rates[BARE], floor)
    if clients == 16 and name == "P-256":
        results.ratio(
            f"{what}: audit on disk / in memory",
            rates["on disk"],
            rates["in memory"],
            at_least=0.85,
        )


def _beside_p11_kit(results: Results, bench: Bench, name: str) -> None:
    what = f"operations: {name}, p11-kit's remote module"
    lacking = bench.lacks_p11_kit(name)
    if lacking:
        results.absent[what] = lacking
        return
    operation = bench.operations[name]
    found = interleaved(
        {
            "ours, p50": lambda: float(bench.call("on disk", operation, 1, 1)["p50"]),
            "p50": lambda: bench.alone(name, 1, "p11-kit")["p50"],
            "ours, rate": lambda: float(bench.call("on disk", operation, 16, 1)["rate"]),
            "rate": lambda: bench.alone(name, 2, "p11-kit")["rate"],
        },
        rounds=3,
    )
    results.figure(f"{what}, one process, p50", "s", found["p50"])
    results.figure(f"{what}, two processes, rate", "/s", found["rate"])
    results.ratio(f"{what}: our p50 / its", found["ours, p50"], found["p50"])
    results.ratio(f"{what}: our rate / its", found["ours, rate"], found["rate"])


def _batches(results: Results, bench: Bench, name: str, sizes: Iterable[int], rounds: int) -> None:
    operation = bench.operations[name]
    batches = {f"batches of {items}": (items, BATCHES[items]) for items in sizes}
    batches["batches of 64, one client"] = (64, 1)

    def called(items: int, clients: int) -> Callable[[], float]:
        return lambda: items * float(bench.call("on disk", operation, clients, items)["rate"])

    works = {what: called(*how) for what, how in batches.items()}
    alone = {
        "alone": lambda: bench.alone(name, 1)["rate"],
        "alone, two processes": lambda: bench.alone(name, 2)["rate"],
    }
    rates = interleaved(works | alone, rounds)
    for what, values in rates.items():
        results.figure(f"operations: {name}, {what}, rate", "/s", values)
    for what in batches:
        results.ratio(
            f"operations: {name}, {what}: rate / two processes alone",
            rates[what],
            rates["alone, two processes"],
            at_least=BATCHED if what == "batches of 64" else None,
        )
