"""What a worker's answers and its end mean, without a process."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from keycustody.errors import InternalError, KeyNotFound, TokenUnavailable
from keycustody.token.api import AnyReply, CreateVersion, Done, Failed, Outputs, Scan, Scanned
from keycustody.token.remedies import Remedy
from keycustody.token.worker_process import Job, ModuleSaid, WorkerProcess


class Office:
    """Notes what a worker hands back."""

    def __init__(self) -> None:
        self.dispatched = 0
        self.repeated: list[Job] = []
        self.left: list[Job] = []
        self.begun: int | None = None

    def answered(self, job: Job, queued: float, worked: float) -> None:
        assert job.kind
        assert queued >= 0
        assert worked >= 0

    def dispatch(self) -> None:
        self.dispatched += 1

    def again(self, job: Job, failed: Failed) -> None:
        self.repeated.append(job)

    def left_behind(self, jobs: Sequence[Job], *, begun: int) -> None:
        self.left += jobs
        self.begun = begun


class Child:
    """Takes frames and can be killed."""

    pid = 1

    def __init__(self) -> None:
        self.sent = 0
        self.ledger = (0, 0, 0)
        self.killed = self.abandoned = False

    def send(self, frame: bytes) -> None:
        self.sent += 1

    def kill(self) -> None:
        self.killed = True

    def abandon(self) -> None:
        self.abandoned = True


def _worker(office: Office) -> tuple[WorkerProcess, Child]:
    worker, child = WorkerProcess(office), Child()
    worker._child = child  # type: ignore[assignment]
    worker.serve()
    return worker, child


def _job() -> Job:
    return Job(Scan(), asyncio.get_running_loop().create_future())


def _with_worker(reply: AnyReply) -> tuple[Office, Child, WorkerProcess, Job]:
    async def run() -> tuple[Office, Child, WorkerProcess, Job]:
        office = Office()
        worker, child = _worker(office)
        job = _job()
        worker.send(job)
        worker._received(reply)
        if job.answer.done():
            job.answer.exception()
        return office, child, worker, job

    return asyncio.run(run())


@pytest.mark.parametrize(
    # What a worker that was of no use yet is not given a login for, either.
    "remedy",
    [Remedy.RENEW, Remedy.RETRY, Remedy.FIND, Remedy.REOPEN, Remedy.LOGIN],
)
def test_a_module_that_must_start_again_costs_its_worker_and_not_the_request(
    remedy: Remedy,
) -> None:
    failed = Failed("TOKEN_UNAVAILABLE", "The token went away.", "CKR_DEVICE_ERROR", remedy)
    office, child, worker, job = _with_worker(failed)
    assert (child.killed, worker.ready) == (True, False)
    assert office.repeated == [job]
    assert not job.answer.done()


@pytest.mark.parametrize("cause", ["", "CKR_DATA_LEN_RANGE", "CKR_MECHANISM_INVALID"])
@pytest.mark.parametrize("remedy", ["", Remedy.GIVE_UP, "no such remedy"])
def test_any_other_failure_is_the_answer(cause: str, remedy: str) -> None:
    office, child, _, job = _with_worker(Failed("KEY_NOT_FOUND", "There is none.", cause, remedy))
    assert (child.killed, office.repeated) == (False, [])
    error = job.answer.exception()
    assert isinstance(error, KeyNotFound)
    assert error.message == "There is none."
    said = error.__cause__
    assert (str(said), type(said)) == (cause, ModuleSaid) if cause else said is None


@pytest.mark.parametrize("reply", [Done(), Outputs([b"x"])])
def test_an_answer_to_another_question_is_not_passed_on(reply: Any) -> None:
    _, _, _, job = _with_worker(reply)
    assert isinstance(job.answer.exception(), InternalError)


def test_an_unknown_code_is_internal() -> None:
    _, _, _, job = _with_worker(Failed("NO_SUCH_CODE", "?"))
    assert isinstance(job.answer.exception(), InternalError)


def test_answers_come_in_order_and_also_for_who_gave_up() -> None:
    async def run() -> None:
        office = Office()
        worker, _ = _worker(office)
        jobs = [_job() for _ in range(3)]
        for job in jobs:
            worker.send(job)
        jobs[0].answer.cancel()
        replies = [Scanned([], [str(number)]) for number in range(3)]
        for reply in replies:
            worker._received(reply)
        worker._received(Done())  # to nothing
        assert [await job.answer for job in jobs[1:]] == replies[1:]
        assert office.dispatched == 3

    asyncio.run(run())


@pytest.mark.parametrize(("begun", "after"), [(1, 0), (2, 1)])
def test_what_is_left_goes_back_in_order(begun: int, after: int) -> None:
    async def run() -> None:
        office = Office()
        worker, child = _worker(office)
        jobs = [_job() for _ in range(4)]
        for job in jobs:
            worker.send(job)
        worker._received(Scanned([], []))
        child.ledger = (begun, 0, 0)
        worker._lost()
        assert office.left == jobs[1:]
        assert office.begun == after
        assert worker.gone.is_set()
        late = _job()
        worker.send(late)
        assert isinstance(late.answer.exception(), TokenUnavailable)

    asyncio.run(run())


def test_only_what_can_be_repeated_says_so() -> None:
    async def run() -> None:
        create = CreateVersion("k.v1", bytes(16), "sign", "EC_P256")
        job = Job(create, asyncio.get_running_loop().create_future())
        assert not job.repeatable
        assert _job().repeatable

    asyncio.run(run())


@pytest.mark.parametrize("remedy", [Remedy.REOPEN, Remedy.LOGIN])
def test_a_worker_that_was_of_use_gets_another_login(remedy: Remedy) -> None:
    async def run() -> None:
        office = Office()
        worker, child = _worker(office)
        jobs = [_job() for _ in range(3)]
        for job in jobs:
            worker.send(job)
        failed = Failed("TOKEN_UNAVAILABLE", "The token went away.", "CKR_X", remedy)
        worker._received(Scanned([], []))
        worker._received(failed)
        assert (worker.ready, worker.logged_out, child.killed) == (False, True, False)
        assert not worker.attention.is_set()
        worker._received(failed)
        assert worker.attention.is_set()
        assert office.repeated == jobs[1:]
        # What was on its way when that became known is not blamed for it.
        assert [job.tries for job in jobs] == [0, 0, -1]

    asyncio.run(run())


def test_a_process_that_does_not_die_may_have_begun_anything() -> None:
    async def run() -> None:
        office = Office()
        worker, child = _worker(office)
        jobs = [_job() for _ in range(2)]
        for job in jobs:
            worker.send(job)
        worker.kill()
        worker._give_up()
        assert child.abandoned
        worker._lost()
        assert (office.left, office.begun) == (jobs, 2)

    asyncio.run(run())
