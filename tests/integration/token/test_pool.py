"""The supervisor on a real token: workers that are killed, stopped, or never come up."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from keycustody.errors import (
    DeadlineExceeded,
    KeycustodyError,
    Overloaded,
    TokenUnavailable,
)
from keycustody.formats.delivery import public_point
from keycustody.token.api import Agree, CreateVersion, Outputs, Scan, Sign
from keycustody.token.pool import Pool
from tests.integration.token.opened import OpenedPool, opened
from tests.softhsm import SoftHsmToken

DIGEST = bytes(32)
_POINT = public_point(ec.generate_private_key(ec.SECP256R1()))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _signature(request: Sign, pool: Pool, timeout: float = 30.0) -> Coroutine[Any, Any, Outputs]:
    return pool.call(request, timeout=timeout)


def test_no_request_is_lost_when_workers_are_killed(fresh: OpenedPool) -> None:
    request = Sign(fresh.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST])

    async def under_fire() -> list[Outputs]:
        calls = [asyncio.create_task(_signature(request, fresh.pool)) for _ in range(50)]
        await asyncio.sleep(0)
        os.kill(fresh.pool.pids[0], signal.SIGKILL)
        return await asyncio.gather(*calls)

    for _ in range(3):
        answers = fresh.run(under_fire())
        assert all(isinstance(answer.items[0], bytes) for answer in answers)
        fresh.until(lambda: fresh.pool.ready == 2)
    assert fresh.pool.restarts == 3


def test_the_pool_recovers_when_every_worker_is_killed(fresh: OpenedPool) -> None:
    request = Sign(fresh.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST])
    for _ in range(5):
        # At the next call the pool does not know it yet, and sends the request to both.
        for pid in fresh.pool.pids:
            os.kill(pid, signal.SIGKILL)
        (signature,) = fresh.call(request).items
        assert isinstance(signature, bytes)
        assert fresh.call(Scan()).objects
        fresh.until(lambda: fresh.pool.ready == 2)


def test_a_request_that_kills_workers_is_begun_twice_and_no_more(fresh: OpenedPool) -> None:
    request = CreateVersion("slow.v1", bytes(16), "sign", "RSA_4096")
    # A stand-in for a poisonous request: one that may be repeated, and whose worker always dies.
    slow = fresh.pool.call(request, timeout=60)

    async def poison() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("keycustody.token.worker_process.NOT_IDEMPOTENT", ())
            call = asyncio.create_task(slow)
            await asyncio.sleep(0)
        before = set(fresh.pool.pids)
        for _ in range(2):
            await asyncio.sleep(0.1)
            assert not call.done()
            busy = next(pid for pid in before if _working(pid))
            before.discard(busy)
            os.kill(busy, signal.SIGKILL)
        with pytest.raises(TokenUnavailable):
            await call

    fresh.run(poison())


def _working(pid: int) -> bool:
    """Is the process running, rather than waiting for a request?"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "R"


def test_what_changes_the_token_is_not_done_twice(fresh: OpenedPool) -> None:
    async def killed() -> None:
        request = CreateVersion("slow.v1", bytes(16), "sign", "RSA_4096")
        call = asyncio.create_task(fresh.pool.call(request, timeout=60))
        await asyncio.sleep(0.05)
        os.kill(fresh.pool.pids[0], signal.SIGKILL)
        with pytest.raises(TokenUnavailable):
            await call

    fresh.run(killed())
    fresh.until(lambda: fresh.pool.ready == 2)
    assert [o.label for o in fresh.call(Scan()).objects if o.label == "slow.v1"] == []


def test_what_waits_behind_a_change_is_sent_again(fresh_token: SoftHsmToken) -> None:
    with opened(fresh_token, workers=1) as one:
        signing = Sign(one.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST])

        async def killed() -> list[Any]:
            slow = CreateVersion("slow.v1", bytes(16), "sign", "RSA_4096")
            later = CreateVersion("later.v1", b"another 16 bytes", "sign", "EC_P256")
            calls = [one.pool.call(r, timeout=60) for r in (slow, later, signing, signing)]
            tasks = [asyncio.create_task(call) for call in calls]
            await asyncio.sleep(0.05)
            os.kill(one.pool.pids[0], signal.SIGKILL)
            return await asyncio.gather(*tasks, return_exceptions=True)

        first, later, *signed = one.run(killed())
        assert isinstance(first, TokenUnavailable)
        # It was not begun, so that doing it now is doing it once.
        assert not isinstance(later, BaseException)
        assert all(isinstance(answer, Outputs) for answer in signed)


def test_the_queue_is_bounded_and_late_answers_go_to_nobody(fresh_token: SoftHsmToken) -> None:
    with opened(fresh_token, workers=1, queue_limit=3) as one:
        ref = one.make("sign", "ED25519").ref
        pid = one.pool.pids[0]

        async def full() -> list[Any]:
            os.kill(pid, signal.SIGSTOP)
            calls = [
                asyncio.create_task(
                    _signature(Sign(ref, "ED25519", [bytes([n])]), one.pool, timeout=0.05)
                )
                for n in range(6)
            ]
            results = await asyncio.gather(*calls, return_exceptions=True)
            os.kill(pid, signal.SIGCONT)
            return list(results)

        results = one.run(full())
        assert [type(result) for result in results] == [DeadlineExceeded] * 5 + [Overloaded]
        assert one.pool.queued == 0

        # Ed25519 is deterministic: an answer that went astray would show.
        def signed() -> list[list[Any]]:
            return [one.call(Sign(ref, "ED25519", [bytes([n])])).items for n in range(4)]

        first = signed()
        assert first == signed()
        assert len({repr(items) for items in first}) == 4
        assert one.pool.pids == (pid,)


def test_a_caller_that_gives_up_frees_its_place(fresh_token: SoftHsmToken) -> None:
    with opened(fresh_token, workers=1, queue_limit=1) as one:
        request = Sign(one.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST])

        async def give_up() -> Outputs:
            os.kill(one.pool.pids[0], signal.SIGSTOP)
            calls = [asyncio.create_task(_signature(request, one.pool)) for _ in range(3)]
            await asyncio.sleep(0.05)
            assert one.pool.queued == 1
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert one.pool.queued == 0
            os.kill(one.pool.pids[0], signal.SIGCONT)
            return await _signature(request, one.pool)

        assert isinstance(one.run(give_up()).items[0], bytes)


@pytest.mark.parametrize("stopped", [False, True])
def test_closing_leaves_no_process(fresh_token: SoftHsmToken, stopped: bool) -> None:
    with opened(fresh_token) as one:
        pids = one.pool.pids
        assert all(_alive(pid) for pid in pids)
        request = Sign(one.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST])

        async def close() -> Any:
            if stopped:
                os.kill(pids[0], signal.SIGSTOP)
            call = asyncio.create_task(_signature(request, one.pool))
            await asyncio.sleep(0)
            await one.pool.close()
            return (await asyncio.gather(call, return_exceptions=True))[0]

        answer = one.run(close())
        assert isinstance(answer, TokenUnavailable | Outputs)
        # Not even a zombie.
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        with pytest.raises(TokenUnavailable):
            one.call(request)


def test_a_token_that_is_gone_is_said_at_once_and_found_again(fresh_token: SoftHsmToken) -> None:
    store = fresh_token.conf.parent / "tokens"
    with opened(fresh_token) as open_pool:
        pool = open_pool.pool
        request = Sign(open_pool.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST])
        store.rename(store.with_name("gone"))
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)
        open_pool.until(lambda: pool.trouble is not None)
        # Were it not said at once, this would wait for a quarter of an hour.
        with pytest.raises(TokenUnavailable):
            open_pool.call(request, timeout=900)
        store.with_name("gone").rename(store)
        open_pool.until(lambda: pool.ready > 0)
        assert isinstance(open_pool.call(request).items[0], bytes)


def test_workers_leave_signals_to_their_supervisor(fresh: OpenedPool) -> None:
    pids = fresh.pool.pids
    for pid in pids:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    fresh.call(Scan())
    assert fresh.pool.pids == pids


_SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from keycustody.token.pin_guard import PinGuard
from keycustody.token.pool import Pool, PoolSettings

async def main():
    module, conf, label, pin, state = sys.argv[1:]
    settings = PoolSettings(module=module, profile="softhsm2", label=label,
                            environment={"SOFTHSM2_CONF": conf})
    pool = Pool(settings, lambda: pin.encode(), PinGuard(Path(state)))
    await pool.start()
    while pool.ready < 2:
        await asyncio.sleep(0.01)
    print(*pool.pids, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_workers_die_with_their_supervisor(fresh_token: SoftHsmToken) -> None:
    token = fresh_token
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _SUPERVISOR,
            token.module,
            str(token.conf),
            token.label,
            token.user_pin.decode(),
            str(token.state),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        # Stopped ones too: they would never see the end of their pipe.
        os.kill(pids[0], signal.SIGSTOP)
        process.kill()
    end = time.monotonic() + 10
    while any(map(_alive, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(_alive, pids))


def test_workers_know_only_what_is_configured(fresh: OpenedPool) -> None:
    pin = fresh.token.user_pin
    for pid in fresh.pool.pids:
        environ = _bytes(f"/proc/{pid}/environ")
        assert {line.partition(b"=")[0] for line in environ.split(b"\0") if line} <= {
            b"LANG",
            b"PATH",
            b"PYTHONPATH",
            b"SOFTHSM2_CONF",
        }
        assert pin not in environ
        assert pin not in _bytes(f"/proc/{pid}/cmdline")
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size\s+0\s+0\s", limits)
    assert pin.decode() not in repr(fresh.pool)


def _bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except PermissionError:  # a worker is closed to everybody but root, which is the point
        return b""


def test_a_request_too_large_for_a_frame_is_refused(fresh: OpenedPool) -> None:
    ref = fresh.make("sign", "ED25519").ref
    with pytest.raises(KeycustodyError) as caught:
        fresh.call(Sign(ref, "ED25519", [bytes(32 * 1024 * 1024)] * 2))
    assert caught.value.code == "MESSAGE_TOO_LARGE"
    assert fresh.pool.restarts == 0


def test_a_worker_that_made_much_is_replaced_without_a_request_noticing(
    fresh_token: SoftHsmToken,
) -> None:
    with opened(fresh_token, recycle_objects=100) as one:
        request = Agree(one.make("agree", "EC_P256").ref, [_POINT])
        before = one.pool.pids

        async def load() -> None:
            while one.pool.recycles["objects"] < 4:
                calls = (one.pool.call(request, timeout=10) for _ in range(16))
                answers = await asyncio.gather(*calls)
                assert all(isinstance(answer.items[0], bytes) for answer in answers)
                # The new one is there before the old one goes.
                assert one.pool.ready == 2

        one.run(asyncio.wait_for(load(), 60))
        assert set(before).isdisjoint(one.pool.pids)
        assert (one.pool.restarts, one.pool.openings) == (0, 0)


def test_a_stopped_worker_is_killed_and_its_request_done_elsewhere(fresh: OpenedPool) -> None:
    request = Sign(fresh.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST])
    for pid in fresh.pool.pids:
        os.kill(pid, signal.SIGSTOP)
    assert isinstance(fresh.call(request, timeout=5).items[0], bytes)
    fresh.until(lambda: fresh.pool.ready == 2)
    # Nobody asked for anything, and yet it is known.
    os.kill(fresh.pool.pids[0], signal.SIGSTOP)
    fresh.until(lambda: fresh.pool.restarts == 3)


def test_a_missing_key_on_a_missing_token_is_no_missing_key(fresh_token: SoftHsmToken) -> None:
    store = fresh_token.conf.parent / "tokens"
    with opened(fresh_token) as one:
        request = Sign(one.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [DIGEST])
        one.everywhere(request)
        store.rename(store.with_name("gone"))
        for _ in range(5):
            with pytest.raises(TokenUnavailable):
                one.call(request)
        one.until(lambda: one.pool.broken)
        store.with_name("gone").rename(store)
        one.until(lambda: one.pool.ready > 0)
        assert isinstance(one.call(request).items[0], bytes)


def test_an_idle_pool_notices_that_its_token_is_gone(fresh_token: SoftHsmToken) -> None:
    store = fresh_token.conf.parent / "tokens"
    with opened(fresh_token) as one:
        store.rename(store.with_name("gone"))
        one.until(lambda: one.pool.broken)
        assert one.pool.ready == 0
        store.with_name("gone").rename(store)
        one.until(lambda: one.pool.ready == 2)
