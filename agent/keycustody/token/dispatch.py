"""The queue of requests, and which worker gets what.

Rules:

* A request goes to the least loaded worker that is ready; few are in flight on a pipe, only to hide
  its latency, and none behind one that may take long. The queue is first in, first out, bounded.
* What a worker that is gone had not begun is sent again, as often as it takes. What it had begun is
  begun once more elsewhere if it may be repeated, and fails (`TokenUnavailable`) if not.
"""

from collections import deque
from collections.abc import Callable, Sequence

from keycustody.errors import DeadlineExceeded, KeycustodyError, Overloaded, TokenUnavailable
from keycustody.token.api import Failed
from keycustody.token.breaker import GONE
from keycustody.token.ceilings import Ceilings
from keycustody.token.remedies import Remedy
from keycustody.token.worker_process import Job, WorkerProcess

#: Two: one in work, and one that need not cross the pipe when that is done.
IN_FLIGHT = 2
#: How often one request may be begun.
_TRIES = 2

#: What befalls one worker for reasons that may befall them all.
_SHARED = (Remedy.RENEW, Remedy.REOPEN, Remedy.LOGIN)

#: Told of each answer: kind of request, seconds that it waited for a worker to begin with it, and
#: seconds that the worker took. It must be quick.
Observe = Callable[[str, float, float], None]


class Dispatch:
    """What waits, and the workers that serve."""

    def __init__(self, limit: int, ceilings: Ceilings, observe: Observe) -> None:
        self._limit = limit
        self._ceilings = ceilings
        self._observe = observe
        self._queue: deque[Job] = deque()
        self.workers: list[WorkerProcess] = []

    @property
    def ready(self) -> int:
        """How many workers take requests."""
        return sum(worker.ready for worker in self.workers)

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def submit(self, job: Job) -> None:
        """Take a request. Raises `Overloaded`."""
        if len(self._queue) >= self._limit:
            raise Overloaded("More requests wait for the token than the agent accepts.")
        self._queue.append(job)
        self.dispatch()

    def dispatch(self) -> None:
        """Send what waits to the workers that have room."""
        while self._queue:
            worker = self._roomiest(self._queue[0])
            if worker is None:
                return
            job = self._queue.popleft()
            if not job.answer.done():
                worker.send(job)

    def withdraw(self, job: Job) -> None:
        """Take a request out of the queue that nobody waits for. One that was sent stays sent."""
        if job in self._queue:
            self._queue.remove(job)

    def expire(self, job: Job) -> None:
        """Fail a request whose time is over."""
        self.withdraw(job)
        if self.ready:
            job.fail(DeadlineExceeded("The token did not answer within the deadline."))
        else:
            job.fail(TokenUnavailable(GONE))

    def refuse(self, error: Callable[[], KeycustodyError]) -> None:
        """Fail everything that waits."""
        while self._queue:
            self._queue.popleft().fail(error())

    # -- what workers say ------------------------------------------------------------------------

    def answered(self, job: Job, queued: float, worked: float) -> None:
        """Take note of an answer; see `Observe`."""
        self._ceilings.note(job.request, worked)
        self._observe(job.kind, queued, worked)

    def again(self, job: Job, failed: Failed) -> None:
        """Have a request done once more that a worker began and failed for reasons of its own."""
        job.tries += 1
        if failed.remedy in _SHARED:
            # It may be the token that fails: what the others are sent now, they get behind this.
            for worker in self.workers:
                worker.probe()
        if job.repeatable and job.tries < _TRIES:
            self._queue.appendleft(job)
        else:
            job.settle(failed)

    def left_behind(self, jobs: Sequence[Job], *, begun: int) -> None:
        """Take back, in order, what a worker that is gone did not answer; it had begun so many."""
        self._queue.extendleft(reversed(jobs[begun:]))
        for job in reversed(jobs[:begun]):
            self.again(job, Failed(TokenUnavailable.code, "The token's worker ended during this."))
        self.dispatch()

    def _roomiest(self, job: Job) -> WorkerProcess | None:
        best, least = None, 1 if job.long else IN_FLIGHT
        for worker in self.workers:
            load = len(worker.unanswered)
            if worker.ready and load < least and not (load and worker.unanswered[0].long):
                best, least = worker, load
        return best
