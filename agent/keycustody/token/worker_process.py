"""One worker as the supervisor sees it: a child process, and what it was sent and owes an answer.

A worker answers in order and counts what it begins, so that when it dies it is known of each
request whether it was answered, begun, or neither.
"""

import asyncio
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from keycustody.errors import BY_CODE, InternalError, KeycustodyError, TokenUnavailable
from keycustody.token.api import NOT_IDEMPOTENT, AnyReply, Failed, Probe, Reply, Request, reply_type
from keycustody.token.ceilings import LONG
from keycustody.token.frames import encode
from keycustody.token.pipe import Child, start
from keycustody.token.remedies import Remedy

_MODULE = "keycustody.token.worker"
#: What the supervisor does for a worker; all else the worker did itself, or it is the answer.
_LOGIN = (Remedy.REOPEN, Remedy.LOGIN)
_HANDLED = frozenset({*_LOGIN, Remedy.RETRY, Remedy.FIND, Remedy.RENEW})
#: A process that does not even die when it is killed, because it waits for a device, is given up.
_DYING_SECONDS = 1.0


class ModuleSaid(Exception):
    """The name of a PKCS#11 error, for the agent's log: the `__cause__` of what a call raises."""


class Job:
    """One request on its way: its frame, where its answer goes, and how often it was begun."""

    __slots__ = ("answer", "frame", "queued", "repeatable", "request", "sent", "tries")

    def __init__(self, request: Request[Any], answer: "asyncio.Future[Any]") -> None:
        self.request = request
        self.frame = encode(request)
        self.repeatable = type(request) not in NOT_IDEMPOTENT
        self.answer = answer
        self.tries = 0
        #: time.perf_counter(): when it began to wait, and when it was last sent.
        self.queued = self.sent = time.perf_counter()

    @property
    def kind(self) -> str:
        """What is asked."""
        return type(self.request).__name__

    @property
    def long(self) -> bool:
        """May it take long?"""
        return type(self.request) in LONG

    def settle(self, reply: AnyReply) -> None:
        """Give the answer to whoever still waits for it."""
        if isinstance(reply, Failed):
            self.fail(_raised(reply))
        elif type(reply) is not reply_type(self.request):
            self.fail(InternalError("The token's worker gave an answer to another question."))
        elif not self.answer.done():
            self.answer.set_result(reply)

    def fail(self, error: KeycustodyError) -> None:
        """Fail the call, if somebody still waits for it."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Office(Protocol):
    """What a worker needs of its pool."""

    def answered(self, job: Job, queued: float, worked: float) -> None:
        """Take note of an answer: the request waited, and then was worked on, so many seconds."""

    def dispatch(self) -> None:
        """There is room for work."""

    def again(self, job: Job, failed: Failed) -> None:
        """Decide what becomes of a request that failed for the worker's own reasons."""

    def left_behind(self, jobs: Sequence[Job], *, begun: int) -> None:
        """Decide what becomes of what a worker that is gone did not answer; it had begun so many,
        the first ones."""


class WorkerProcess:
    """One child process. Start it, `ask` it to open the token, then let it `serve`."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._child: Child | None = None
        self._serves = False
        self._answered = 0
        self._given_up = False
        #: It takes requests.
        self.ready = False
        #: It answered something since it last logged in.
        self.useful = False
        #: It failed at a request, or ended during one: not only because somebody killed it.
        self.failed = False
        #: It failed, and was killed for it; it may still have gone on for a moment.
        self._doomed = False
        #: It was killed because it did not answer.
        self.hung = False
        #: It must log in again before it can serve.
        self.logged_out = False
        #: It has made, or occupies, so much that another one should take its place; why.
        self.worn = ""
        #: What it was sent and has not answered.
        self.unanswered: deque[Job] = deque()
        #: When it last answered (time.perf_counter()): what was sent before that waited for it.
        self.answered_at = time.perf_counter()
        #: Its pipe is closed, from whichever end.
        self.gone = asyncio.Event()
        #: It is gone, or logged out and idle, or worn: whoever keeps it must do something.
        self.attention = asyncio.Event()

    @property
    def pid(self) -> int:
        """Its process id; 0 before it is started."""
        return self._child.pid if self._child else 0

    @property
    def stopped(self) -> bool:
        """Has somebody stopped it (SIGSTOP)?"""
        return self._child is not None and not self.gone.is_set() and self._child.stopped

    @property
    def costs(self) -> tuple[int, int]:
        """How many objects it has made, and how many bytes of memory it occupies."""
        return self._child.ledger[1:] if self._child else (0, 0)

    @property
    def began(self) -> float:
        """When it began, or should have begun, with what it owes first (time.perf_counter())."""
        return max(self.unanswered[0].sent, self.answered_at)

    async def start(self, environment: Mapping[str, str]) -> None:
        """Start the process. Raises `OSError`."""
        self._child = await start(_MODULE, environment, self._received, self._lost)

    async def ask(self, request: Request[Reply]) -> Reply:
        """Ask while it starts, past the queue. Raises `TokenUnavailable` if it dies of it."""
        job = Job(request, asyncio.get_running_loop().create_future())
        self.send(job)
        return cast("Reply", await job.answer)

    def serve(self) -> None:
        """Take requests from now on."""
        self._serves = True
        self.logged_out = self.useful = False
        self.ready = not self.gone.is_set()

    def suspend(self) -> None:
        """Take only what is asked past the queue; what was sent has been answered."""
        self.ready = self._serves = False

    async def drain(self) -> None:
        """Take no more requests, and wait until those that were sent are answered or left."""
        self.ready = False
        while self.unanswered:
            self.attention.clear()
            await self.attention.wait()

    def send(self, job: Job) -> None:
        """Send a request."""
        if self._child is None or self.gone.is_set():
            job.fail(self._ended())
            return
        self.unanswered.append(job)
        job.sent = time.perf_counter()
        self._child.send(job.frame)

    def probe(self) -> None:
        """Ask whether the token is still there; the answer is the worker's own state."""
        if self.ready and not any(isinstance(job.request, Probe) for job in self.unanswered):
            job = Job(Probe(), asyncio.get_running_loop().create_future())
            job.answer.add_done_callback(lambda done: done.cancelled() or done.exception())
            job.repeatable = False
            self.send(job)

    @property
    def only_killed(self) -> bool:
        """Did it end because somebody killed or stopped it? That says nothing of the token."""
        killed = self._child is not None and self._child.status == -signal.SIGKILL
        return killed and not self._doomed and not self.hung

    def kill(self) -> None:
        """End the process at once; what it leaves is dealt with when it is gone."""
        self.ready = False
        if self._child is not None and not self.gone.is_set():
            self._child.kill()
            asyncio.get_running_loop().call_later(_DYING_SECONDS, self._give_up)

    async def end(self) -> None:
        """End the process and wait until it is gone."""
        self.ready = False
        if self._child is not None:
            if self.gone.is_set():
                self._child.kill()  # not all that closes its pipe also ends
            await self._child.end()

    def _received(self, reply: AnyReply) -> None:
        if not self.unanswered:
            return  # an answer to nothing; what comes next is answered by its own type or fails
        job = self.unanswered.popleft()
        self._answered += 1
        began, now = max(job.sent, self.answered_at), time.perf_counter()
        self.answered_at = now
        if self._serves:
            self._office.answered(job, began - job.queued, now - began)
        if self._serves and isinstance(reply, Failed) and reply.remedy in _HANDLED:
            self._ails(job, reply)
        else:
            self.useful = self._serves
            job.settle(reply)
        if not self.ready and not self.unanswered:
            self.attention.set()
        self._office.dispatch()

    def _ails(self, job: Job, reply: Failed) -> None:
        """Do for the worker what it cannot do itself, and have the request done again."""
        self.failed = True
        if self.logged_out or self._doomed:
            # Sent before that was known: it costs the request no try.
            job.tries -= 1
        elif reply.remedy in _LOGIN and self.useful:
            self.ready, self.logged_out = False, True
        else:
            self._doomed = True
            self.kill()
        self._office.again(job, reply)

    def _ended(self) -> TokenUnavailable:
        if self.hung:
            return TokenUnavailable("The token does not answer while a worker starts.")
        return TokenUnavailable("The token's worker ended while it started.")

    def _give_up(self) -> None:
        if self._child is not None and not self.gone.is_set():
            self._given_up = True
            self._child.abandon()

    def _lost(self) -> None:
        self.ready = False
        self.gone.set()
        self.attention.set()
        left, self.unanswered = list(self.unanswered), deque()
        if not self._serves or self._child is None:
            for job in left:
                job.fail(self._ended())
            return
        begun = self._child.ledger[0] - self._answered
        if self._doomed:
            # It failed before, and was killed for that: not by what it had begun since.
            for job in left[: max(0, begun)]:
                job.tries -= 1
        if self._given_up:
            begun = len(left)  # it may still be at work, so that anything may have been begun
        self.failed = self.failed or begun > 0
        self._office.left_behind(left, begun=max(0, begun))


def _raised(failed: Failed) -> KeycustodyError:
    error = BY_CODE.get(failed.code, InternalError)(failed.message)
    if failed.cause:
        error.__cause__ = ModuleSaid(failed.cause)
    return error
