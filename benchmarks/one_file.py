"""One file in a process of its own, and by how much its memory grew. Run by `growth`."""

import time
from pathlib import Path
from typing import Any

import keycustody
from benchmarks import agents
from benchmarks.bulk import ours
from benchmarks.children import serve


def answer(question: dict[str, Any]) -> dict[str, float]:
    """Encrypt or decrypt once."""
    with keycustody.connect(socket=str(agents.SOCKET)) as agent:
        peer = ours(agent)
        work = {"encrypt": peer.encrypt_file, "decrypt": peer.decrypt_file}[question["way"]]
        assert work is not None
        Path("/proc/self/clear_refs").write_text("5")  # begin to measure the peak anew
        before = _most()
        started = time.perf_counter()
        work(Path(question["source"]), Path(question["target"]))
        return {"seconds": time.perf_counter() - started, "grown": _most() - before}


def _most() -> int:
    """The most memory since, in bytes: getrusage's number is inherited from who started this."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    serve(answer)
