"""Bulk AEAD

From file to file beside a plain copy (a loop of 1 MiB reads and writes) and the peers, 256 MiB;
ours and the copy also with 2 GiB; and 16 MiB in memory beside AES-256-GCM of the same OpenSSL, a
copy, and the peers in one call each (of Tink, its AEAD: streams are for files). A session is opened
for each of our files, as a command would. Nobody waits for the disk, and nobody pays for another's
file: all stay in the page cache, what was written before is on the disk or gone when the next one
begins, memory for it has just been used and freed, since a virtual machine gets back with delay
what it gave to its host, and the file to be read was just read.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import keycustody
from benchmarks import agents
from benchmarks.peers import BLOCK, FILE_PEERS, Peer, aes_gcm, cobblestone
from benchmarks.results import Results, interleaved

MIB = 2**20
#: Part of a plain copy's rate, file to file.
COPY = 0.9
#: How many times as fast as each peer, file to file.
TARGETS = {
    "Tink streaming AEAD": 2.0,
    "age": 3.0,
    "AWS Encryption SDK, 4 KiB frames, signed": 15.0,
}
#: As much memory, in MiB, is used and freed before each file, or as much as the file takes.
WARM = 512
#: Two seconds after memory was freed, Linux gives all that is free to the host; what is freed after
#: a pause of that length stays for another.
PAUSE_SECONDS = 2.2
#: MiB a second.
FAST = 900
#: They take five seconds for a file, and have rounds of their own: those who are compared closely
#: take their turns seconds apart.
SLOW = "AWS Encryption SDK"
CONTEXT = {"tenant": "42"}
COPYING, OURS = "plain copy", "keycustody"


def measure(results: Results, *, quick: bool) -> None:
    """Files, large files, memory."""
    with agents.serving(), keycustody.connect(socket=str(agents.SOCKET)) as agent:
        peers = present(results, FILE_PEERS)
        size = 32 if quick else 256
        if quick:
            peers = {name: peer for name, peer in peers.items() if "64 KiB" not in name}
        pause = 0 if quick else PAUSE_SECONDS
        slow = {name: peer for name, peer in peers.items() if name.startswith(SLOW)}
        quicker = {name: peer for name, peer in peers.items() if name not in slow}
        _files(results, agent, quicker, size, pause, rounds=3 if quick else 4)
        _files(results, agent, slow, size, pause, rounds=2, copied=False)
        if not quick:
            _files(results, agent, {}, 2048, pause, rounds=3)
        _memory(results, agent, peers, 16, rounds=3)


def present(results: Results, makers: dict[str, Callable[[], Peer]]) -> dict[str, Peer]:
    """The peers that can be had; the others are noted as absent."""
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            results.absent[name] = str(error)
    return found


def copy(source: Path, target: Path) -> None:
    """What any program that reads and writes a file has to do."""
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        while block := reader.read(BLOCK):
            writer.write(block)


def ours(agent: keycustody.Agent) -> Peer:
    """This client."""

    def encrypt_file(source: Path, target: Path) -> None:
        with agent.session("invoices", context=CONTEXT) as session:
            session.encrypt_file(source, target)

    def decrypt_file(source: Path, target: Path) -> None:
        agent.decrypt_file(source, target, key="invoices", context=CONTEXT)

    session = agent.session("invoices", context=CONTEXT)
    return Peer(
        session.encrypt,
        lambda data: agent.decrypt(data, key="invoices", context=CONTEXT),
        encrypt_file,
        decrypt_file,
    )


def random_file(path: Path, size: int) -> None:
    """`size` MiB that nothing compresses."""
    block = os.urandom(MIB)
    with path.open("wb") as stream:
        for _ in range(size):
            stream.write(block)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _files(
    results: Results,
    agent: keycustody.Agent,
    peers: dict[str, Peer],
    size: int,
    pause: float,
    rounds: int,
    *,
    copied: bool = True,
) -> None:
    """Ours beside those peers and, if it is `copied`, a plain copy."""
    plain, made = agents.FOLDER / "plain", agents.FOLDER / "made"
    random_file(plain, size)
    works: dict[str, Callable[[], float]] = {}
    for number, (name, peer) in enumerate({OURS: ours(agent), **peers}.items()):
        sealed = agents.FOLDER / f"sealed{number}"
        works[f"{name}, encrypt"] = _timed(peer.encrypt_file, plain, made, size, pause)
        works[f"{name}, decrypt"] = _timed(peer.decrypt_file, sealed, made, size, pause)
        works[f"{name}, encrypt"]()
        made.rename(sealed)
    if copied:
        works[COPYING] = _timed(copy, plain, made, size, pause)
    rates = interleaved(works, rounds)
    what = f"bulk: file of {size} MiB"
    for name, values in rates.items():
        if copied or not name.startswith(OURS):
            results.figure(f"{what}, {name}", "MiB/s", values)
    for way in ("encrypt", "decrypt"):
        mine = rates[f"{OURS}, {way}"]
        if copied:
            results.ratio(f"{what}, {way} / {COPYING}", mine, rates[COPYING], at_least=COPY)
        for name in peers:
            results.ratio(
                f"{what}, {way} / {name}",
                mine,
                rates[f"{name}, {way}"],
                at_least=TARGETS.get(name),
            )
    for path in agents.FOLDER.glob("*"):
        if path.name.rstrip("0123456789") in {"plain", "sealed", "made"}:
            path.unlink()


def _timed(
    work: Callable[[Path, Path], None] | None,
    source: Path,
    target: Path,
    size: int,
    pause: float,
) -> Callable[[], float]:
    assert work is not None
    scratch, took = target.with_name("scratch"), 0.0

    # A new file each time: nobody overwrites pages that somebody else made.
    def once() -> float:
        nonlocal took
        # What was made before goes before it is written to the disk; the rest is written now.
        target.unlink(missing_ok=True)
        os.sync()
        # For whoever is about as fast as memory, and for much of it; others hardly notice where it
        # comes from.
        if size > WARM or not took or size / took > FAST:
            time.sleep(pause)
            random_file(scratch, max(size, WARM))
            scratch.unlink()
        _read(source)
        took = seconds(lambda: work(source, target))
        return size / took

    return once


def _read(path: Path) -> None:
    """What nobody has read for a while, a virtual machine's host may have put elsewhere."""
    with path.open("rb", buffering=0) as stream:
        while stream.read(BLOCK):
            pass


def _memory(
    results: Results, agent: keycustody.Agent, peers: dict[str, Peer], size: int, rounds: int
) -> None:
    data = os.urandom(size * MIB)
    works: dict[str, Callable[[], float]] = {}
    everyone = {
        OURS: ours(agent),
        "AES-256-GCM alone": aes_gcm(),
        "Cobblestone alone": cobblestone(),
        COPYING: Peer(*(lambda data: memoryview(data).tobytes(),) * 2),
        **peers,
    }
    for name, peer in everyone.items():
        sealed = peer.encrypt(data)
        works[f"{name}, encrypt"] = lambda peer=peer: size / seconds(lambda: peer.encrypt(data))
        works[f"{name}, decrypt"] = lambda peer=peer, sealed=sealed: (
            size / seconds(lambda: peer.decrypt(sealed))
        )
    rates = interleaved(works, rounds)
    what = f"bulk: {size} MiB in memory"
    for name, values in rates.items():
        results.figure(f"{what}, {name}", "MiB/s", values)
    for name in list(everyone)[1:]:
        for way in ("encrypt", "decrypt"):
            results.ratio(
                f"{what}, {way} / {name}", rates[f"{OURS}, {way}"], rates[f"{name}, {way}"]
            )
