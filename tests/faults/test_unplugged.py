"""A token that is unplugged and put in again: SoftHSM behind p11-kit's server, which is killed.

Its client module then fails whatever it is asked, and works again only when a server is there and
the module was initialised anew.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keycustody.errors import DeadlineExceeded, TokenUnavailable
from keycustody.token.api import Sign
from tests.contract import modules
from tests.integration.token.opened import OpenedPool, opened
from tests.softhsm import SoftHsmToken

#: How soon it is told, and how soon it serves again: two seconds, and as much for a busy machine.
TOLD_SECONDS = 4.0
BACK_SECONDS = 4.0


class Socket:
    """Where the token is plugged in."""

    def __init__(self, token: SoftHsmToken, address: Path) -> None:
        self._token = token
        self.address = address
        self._server: subprocess.Popen[bytes] | None = None

    def plug_in(self) -> None:
        """Have the token there."""
        command = ["p11-kit", "server", "-f", "-n", str(self.address)]
        command += ["--provider", self._token.module, f"pkcs11:token={self._token.label}"]
        self._server = subprocess.Popen(
            command,
            env={"PATH": "/usr/bin:/bin", **self._token.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # It has a process for each client: all of them are one group.
            start_new_session=True,
        )
        modules.wait_for(self.address.is_socket)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server and to the processes that serve its clients."""
        assert self._server is not None
        os.killpg(self._server.pid, number)

    def pull_out(self) -> None:
        """Have the token gone, in the middle of whatever is going on."""
        if self._server is not None:
            self.send(signal.SIGKILL)
            self._server.wait()
            self._server = None
            self.address.unlink(missing_ok=True)


@pytest.fixture
def socket(fresh_token: SoftHsmToken, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Socket]:
    # A socket's path is 107 bytes at most, and a test's own folder is named after the test.
    socket = Socket(fresh_token, tmp_path_factory.mktemp("p11") / "sock")
    try:
        socket.plug_in()
        yield socket
    finally:
        socket.pull_out()


@pytest.fixture
def remote(fresh_token: SoftHsmToken, socket: Socket) -> Iterator[OpenedPool]:
    """Two workers that reach the token through the socket."""
    try:
        module = modules.library("pkcs11/p11-kit-client.so")
    except modules.Missing as missing:
        pytest.skip(f"{missing} is not there")
    environment = {"P11_KIT_SERVER_ADDRESS": f"unix:path={socket.address}"}
    with opened(
        fresh_token, module=module, profile="p11_kit_remote", environment=environment
    ) as pool:
        yield pool


@pytest.fixture
def request_(remote: OpenedPool) -> Sign:
    request = Sign(remote.make("sign", "EC_P256").ref, "ECDSA_SHA_256", [bytes(32)])
    remote.everywhere(request)
    return request


def signs(pool: OpenedPool, request: Sign) -> bool:
    """Ask once: an answer is a signature, or that the token is away."""
    with contextlib.suppress(TokenUnavailable):
        (signature,) = pool.call(request, timeout=10).items
        assert isinstance(signature, bytes)
        return True
    return False


def seconds_until_it_signs(pool: OpenedPool, request: Sign) -> float:
    """Ask until it signs."""
    begun = time.monotonic()
    while not signs(pool, request):
        assert time.monotonic() < begun + 60, "it does not come back"
        pool.pause(0.01)
    return time.monotonic() - begun


def test_a_token_that_is_put_in_again_costs_nobody_a_restart(
    remote: OpenedPool, socket: Socket, request_: Sign
) -> None:
    socket.pull_out()
    socket.plug_in()
    assert seconds_until_it_signs(remote, request_) < BACK_SECONDS


def test_a_token_that_is_away_is_told_at_once_and_found_again(
    remote: OpenedPool, socket: Socket, request_: Sign
) -> None:
    socket.pull_out()
    begun = time.monotonic()
    assert not signs(remote, request_)
    assert time.monotonic() < begun + TOLD_SECONDS
    remote.until(lambda: remote.pool.broken)
    for _ in range(50):
        begun = time.monotonic()
        assert not signs(remote, request_)
        assert time.monotonic() < begun + 0.5
        remote.pause(0.05)
    assert remote.pool.ready == 0
    socket.plug_in()
    assert seconds_until_it_signs(remote, request_) < BACK_SECONDS


def test_what_is_asked_while_it_is_pulled_out_is_answered_or_refused(
    remote: OpenedPool, socket: Socket, request_: Sign
) -> None:
    async def asked() -> list[object]:
        calls = [asyncio.create_task(remote.pool.call(request_, timeout=10)) for _ in range(200)]
        await calls[20]
        socket.pull_out()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return [getattr(answer, "items", answer) for answer in answers]

    answers = remote.run(asked())
    refused = [answer for answer in answers if isinstance(answer, TokenUnavailable)]
    signed = [answer for answer in answers if isinstance(answer, list)]
    assert len(refused) + len(signed) == len(answers)
    assert len(refused) > 0
    assert all(len(signature) == 64 for (signature,) in signed)
    socket.plug_in()
    assert seconds_until_it_signs(remote, request_) < BACK_SECONDS


def test_a_token_that_hangs_is_given_up_in_time_and_found_again(
    remote: OpenedPool, socket: Socket, request_: Sign
) -> None:
    socket.send(signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises((TokenUnavailable, DeadlineExceeded)):
        remote.call(request_, timeout=6)
    assert time.monotonic() < begun + 7
    socket.send(signal.SIGCONT)
    assert seconds_until_it_signs(remote, request_) < BACK_SECONDS
