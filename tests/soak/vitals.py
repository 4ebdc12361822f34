"""What an agent and its workers use, second by second, and whether it stays level."""

import contextlib
import statistics
import threading
import time
from dataclasses import dataclass

import psutil

from tests.faults.agents import workers_of

#: Growth that is none: allocators and caches, in the second half against the first.
_MEMORY_BYTES = 16 * 2**20
_MEMORY_RATIO = 1.15
_DESCRIPTORS = 10


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. `descriptors` is 0 where nobody may count them: the agent is not dumpable."""

    at: float
    memory: int
    workers_memory: int
    descriptors: int
    threads: int
    workers: int


class Vitals:
    """Looks every half a second, in a thread of its own."""

    def __init__(self, agent: int) -> None:
        self._agent = psutil.Process(agent)
        self.samples: list[Sample] = []

    def run(self, over: threading.Event) -> None:
        """Look until it is over."""
        while not over.wait(0.5):
            workers = workers_of(self._agent.pid)
            memory = 0
            for worker in workers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    memory += worker.memory_info().rss
            self.samples.append(
                Sample(
                    time.monotonic(),
                    self._agent.memory_info().rss,
                    memory,
                    self._descriptors(),
                    self._agent.num_threads(),
                    len(workers),
                )
            )

    def growing(self) -> list[str]:
        """Return what was not level, in words."""
        # The first quarter is for caches that fill and keys that are loaded.
        rest = self.samples[len(self.samples) // 4 :]
        first, second = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        found = []
        for name in ("memory", "workers_memory"):
            before, after = (_median(part, name) for part in (first, second))
            if after > before * _MEMORY_RATIO + _MEMORY_BYTES:
                found.append(f"{name} grew from {before} to {after} bytes")
        for name in ("descriptors", "threads"):
            before, after = (_median(part, name) for part in (first, second))
            if after > before + _DESCRIPTORS:
                found.append(f"{name} grew from {before} to {after}")
        return found

    def _descriptors(self) -> int:
        try:
            return self._agent.num_fds()
        except psutil.AccessDenied:
            return 0


def _median(samples: list[Sample], name: str) -> float:
    return float(statistics.median(getattr(sample, name) for sample in samples))
