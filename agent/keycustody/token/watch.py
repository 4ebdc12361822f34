"""Watches workers: who hangs, was stopped, has used too much, or was not asked for a while.

Every `TICK` seconds it looks at each process, also at those that are starting. It costs a request
nothing. Rules:

* A worker that owes an answer for longer than the attempt's ceiling hangs, and is killed.
* A worker that is found stopped (SIGSTOP) twice in a row works for nobody, and is killed.
* A worker that is idle is asked now and then whether the token is still there, so that a token that
  was unplugged at night is known before somebody needs it.
* A worker that has made too many objects, or grown too large, is marked to be replaced.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from keycustody.token.ceilings import Ceilings
from keycustody.token.worker_process import WorkerProcess

TICK = 0.1
#: An idle worker is asked after so many seconds: what health checks say is at most this old.
_PROBE_SECONDS = 0.5
#: A new process on a token with many keys may be large from the start.
_GROWTH = 1.5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may have used before another one takes its place."""

    objects: int
    memory_bytes: int


class Watch:
    """Looks after one worker. `hung` is called when it had to be killed."""

    def __init__(
        self, worker: WorkerProcess, ceilings: Ceilings, limits: Limits, hung: Callable[[], None]
    ) -> None:
        self._worker = worker
        self._ceilings = ceilings
        self._limits = limits
        self._hung = hung
        self._was_stopped = False
        self._at_first = 0

    def look(self, now: float) -> None:
        """Look once; `now` is time.perf_counter()."""
        worker = self._worker
        stopped, self._was_stopped = self._was_stopped, worker.stopped
        if stopped and self._was_stopped:
            _log.warning("worker.stopped", pid=worker.pid)
            worker.kill()
        elif worker.unanswered:
            self._time(now)
        elif worker.ready and now - worker.answered_at > _PROBE_SECONDS:
            worker.probe()
        if worker.ready and not worker.worn:
            self._weigh()

    def _time(self, now: float) -> None:
        worker, job = self._worker, self._worker.unanswered[0]
        ceiling = self._ceilings.of(job.request)
        if now - worker.began > ceiling:
            _log.warning("worker.hung", pid=worker.pid, request=job.kind, seconds=ceiling)
            worker.hung = True
            self._hung()
            worker.kill()

    def _weigh(self) -> None:
        worker = self._worker
        made, memory = worker.costs
        self._at_first = self._at_first or memory
        if made >= self._limits.objects:
            worker.worn = "objects"
        elif memory >= max(self._limits.memory_bytes, _GROWTH * self._at_first):
            worker.worn = "memory"
        if worker.worn:
            worker.attention.set()


async def run(watches: Callable[[], Iterable[Watch]]) -> None:
    """Look after all of them until cancelled."""
    while True:
        await asyncio.sleep(TICK)
        for watch in tuple(watches()):
            watch.look(time.perf_counter())
