"""One worker as the supervisor sees it: a child process, and what it was sent and owes an answer.

A worker answers in order and counts what it begins, so that when it dies it is known of each
request whether it was answered, begun, or neither.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from keycustody.errors import BY_CODE, InternalError, KeycustodyError, TokenUnavailable
from keycustody.token.api import NOT_IDEMPOTENT, AnyReply, Failed, Reply, Request, reply_type
from keycustody.token.frames import encode
from keycustody.token.pipe import Child, start

_MODULE = "keycustody.token.worker"

#: What a module says when only finalising and initialising it again helps: a new process does that.
_RENEW = frozenset(
    {
        "DeviceError",
        "DeviceMemory",
        "DeviceRemoved",
        "HostMemory",
        "OperationActive",
        "SessionClosed",
        "SessionHandleInvalid",
        "TokenNotPresent",
        "UserNotLoggedIn",
    }
)


class ModuleSaid(Exception):
    """The name of a PKCS#11 error, for the agent's log: the `__cause__` of what a call raises."""


class Job:
    """One request on its way: its frame, where its answer goes, and how often it was begun."""

    __slots__ = ("answer", "expected", "frame", "kind", "queued", "repeatable", "sent", "tries")

    def __init__(self, request: Request[Any], answer: "asyncio.Future[Any]") -> None:
        self.frame = encode(request)
        self.kind = type(request).__name__
        self.expected = reply_type(request)
        self.repeatable = not isinstance(request, NOT_IDEMPOTENT)
        self.answer = answer
        self.tries = 0
        #: time.perf_counter(): when it began to wait, and when it was last sent.
        self.queued = self.sent = time.perf_counter()

    def settle(self, reply: AnyReply) -> None:
        """Give the answer to whoever still waits for it."""
        if isinstance(reply, Failed):
            self.fail(_raised(reply))
        elif not isinstance(reply, self.expected):
            self.fail(InternalError("The token's worker gave an answer to another question."))
        elif not self.answer.done():
            self.answer.set_result(reply)

    def fail(self, error: KeycustodyError) -> None:
        """Fail the call, if somebody still waits for it."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Office(Protocol):
    """What a worker needs of its pool."""

    def answered(self, kind: str, queued: float, worked: float) -> None:
        """Take note of an answer: the request waited, and then was worked on, so many seconds."""

    def dispatch(self) -> None:
        """There is room for work."""

    def again(self, job: Job, failed: Failed) -> None:
        """Decide what becomes of a request that failed for the worker's own reasons."""

    def left_behind(self, jobs: Sequence[Job], *, begun: bool) -> None:
        """Decide what becomes of what a worker that is gone did not answer; `begun` says whether
        it had begun the first of it."""


class WorkerProcess:
    """One child process. Start it, `ask` it to open the token, then let it `serve`."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._child: Child | None = None
        self._serves = False
        self._answered = 0
        #: It takes requests.
        self.ready = False
        #: What it was sent and has not answered.
        self.unanswered: deque[Job] = deque()
        #: When it last answered: what it was sent before that had to wait for it.
        self._answered_at = 0.0
        #: Its pipe is closed, from whichever end.
        self.gone = asyncio.Event()

    @property
    def pid(self) -> int:
        """Its process id; 0 before it is started."""
        return self._child.pid if self._child else 0

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
        self.ready = not self.gone.is_set()

    def send(self, job: Job) -> None:
        """Send a request."""
        if self._child is None or self.gone.is_set():
            job.fail(TokenUnavailable("The token's worker ended while it started."))
            return
        self.unanswered.append(job)
        job.sent = time.perf_counter()
        self._child.send(job.frame)

    async def end(self) -> None:
        """End the process and wait until it is gone."""
        self.ready = False
        if self._child is not None:
            await self._child.end()

    def _received(self, reply: AnyReply) -> None:
        if not self.unanswered:
            return  # an answer to nothing; what comes next is answered by its own type or fails
        job = self.unanswered.popleft()
        self._answered += 1
        began, now = max(job.sent, self._answered_at), time.perf_counter()
        self._answered_at = now
        if self._serves:
            self._office.answered(job.kind, began - job.queued, now - began)
        if self._serves and isinstance(reply, Failed) and reply.cause in _RENEW:
            self.retire()
            self._office.again(job, reply)
        else:
            job.settle(reply)
        self._office.dispatch()

    def retire(self) -> None:
        """Take no more work; the pool starts another when this one is gone."""
        self.ready = False
        if self._child is not None:
            self._child.kill()

    def _lost(self) -> None:
        self.ready = False
        self.gone.set()
        left, self.unanswered = list(self.unanswered), deque()
        if self._serves:
            begun = self._child is not None and self._child.begun > self._answered
            self._office.left_behind(left, begun=begun)
            return
        for job in left:
            job.fail(TokenUnavailable("The token's worker ended while it started."))


def _raised(failed: Failed) -> KeycustodyError:
    error = BY_CODE.get(failed.code, InternalError)(failed.message)
    if failed.cause:
        error.__cause__ = ModuleSaid(failed.cause)
    return error
