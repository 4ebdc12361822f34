"""Messages

1 KiB, with one open session: how many a second one thread encrypts and decrypts. Beside the
primitives alone and the peers with their keys in memory, and beside a client that asks the agent
for each message (a session opened, one message encrypted): what a round trip to any vault is at
best.
"""

import os
from collections.abc import Callable

import keycustody
from benchmarks import agents
from benchmarks.bulk import CONTEXT, OURS, ours, present, seconds
from benchmarks.peers import MESSAGE_PEERS, Peer
from benchmarks.results import Results, interleaved

SIZE = 1024
ROUND_TRIP = "an agent round trip for each"
#: How many times as many messages a second.
TARGETS = {
    "Cobblestone alone": 0.5,
    "AWS Encryption SDK, cached materials": 7.0,
    ROUND_TRIP: 25.0,
}


def measure(results: Results, *, quick: bool) -> None:
    """Both ways, everyone."""
    data = os.urandom(SIZE)
    with agents.serving(), keycustody.connect(socket=str(agents.SOCKET)) as agent:
        everyone = {OURS: ours(agent), **present(results, MESSAGE_PEERS)}
        works: dict[str, Callable[[], float]] = {}
        for name, peer in everyone.items():
            sealed = peer.encrypt(data)
            works[f"{name}, encrypt"] = _rate(peer.encrypt, data, quick=quick)
            works[f"{name}, decrypt"] = _rate(peer.decrypt, sealed, quick=quick)
        works[f"{ROUND_TRIP}, encrypt"] = _rate(_round_trip(agent).encrypt, data, quick=quick)
        rates = interleaved(works, 5 if quick else 9)
    for name, values in rates.items():
        results.figure(f"messages: {name}", "/s", values)
    for way in ("encrypt", "decrypt"):
        mine = rates[f"{OURS}, {way}"]
        for name in [*list(everyone)[1:], ROUND_TRIP]:
            if (theirs := rates.get(f"{name}, {way}")) is not None:
                results.ratio(f"messages: {way} / {name}", mine, theirs, at_least=TARGETS.get(name))


def _round_trip(agent: keycustody.Agent) -> Peer:
    def encrypt(data: bytes) -> bytes:
        with agent.session("invoices", context=CONTEXT) as session:
            return session.encrypt(data)

    return Peer(encrypt, encrypt)


def _rate(work: Callable[[bytes], bytes], data: bytes, *, quick: bool) -> Callable[[], float]:
    """Messages a second, over about a tenth of a second."""
    once = min(seconds(lambda: work(data)) for _ in range(5))
    count = max(5, int((0.05 if quick else 0.1) / once))

    def many() -> None:
        for _ in range(count):
            work(data)

    return lambda: count / seconds(many)
