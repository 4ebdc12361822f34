"""A peer that is gone without a word, as when a cable is pulled, is found out and reached anew."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import keycustody
from keycustody import Tls, aio
from keycustody.client import tls_reach
from tests.integration.identity.conftest import TlsAgent
from tests.integration.identity.test_client import mine, pem


class Wire:
    """Forwards TCP to a port; what was connected when it is cut says nothing any more."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._cut: set[int] = set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cut |= set(range(len(self._pairs)))

    def close(self) -> None:
        # Wakes the thread in accept(), as closing alone would not.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listening.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target))
                number = len(self._pairs)
                self._pairs.append((near, far))
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(
                        target=self._copy, args=(number, source, sink), daemon=True
                    ).start()

    def _copy(self, number: int, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if number not in self._cut:
                    sink.sendall(data)
            if number not in self._cut:
                sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def wire(tls_agent: TlsAgent) -> Iterator[Wire]:
    made = Wire(tls_agent.port)
    yield made
    made.close()


def test_a_cut_wire(
    tls_agent: TlsAgent, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_reach, "_KEEPALIVE_MS", 500)
    monkeypatch.setattr(tls_reach, "_KEEPALIVE_TIMEOUT_MS", 500)
    tls = Tls(ca=pem(tmp_path, tls_agent.authority), **mine(tls_agent, tmp_path))
    where = f"localhost:{wire.port}"
    with keycustody.connect(where, tls=tls, timeout=30) as agent:
        assert agent.sign("release", b"x")
        wire.cut()
        assert agent.sign("release", b"x")

    async def main() -> None:
        async with aio.connect(where, tls=tls, timeout=30) as agent:
            assert await agent.sign("release", b"x")
            wire.cut()
            assert await agent.sign("release", b"x")

    asyncio.run(main())


def test_each_call_waits_no_longer_than_its_own_deadline(
    tls_agent: TlsAgent, tmp_path: Path
) -> None:
    """Many calls, while what listens says nothing: they do not wait one after another."""
    tls = Tls(ca=pem(tmp_path, tls_agent.authority), **mine(tls_agent, tmp_path))
    codes: list[str] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
        where = f"localhost:{mute.getsockname()[1]}"
        started = time.monotonic()
        with keycustody.connect(where, tls=tls, timeout=1.0) as agent:

            def ask() -> None:
                try:
                    agent.keys()
                except keycustody.KeycustodyError as error:
                    codes.append(error.code)

            threads = [threading.Thread(target=ask) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        async def main() -> None:
            async with aio.connect(where, tls=tls, timeout=1.0) as agent:
                asked = (agent.keys() for _ in range(10))
                failed = await asyncio.gather(*asked, return_exceptions=True)
                codes.extend(getattr(error, "code", repr(error)) for error in failed)

        asyncio.run(main())
        assert time.monotonic() - started < 9  # one after another: twenty
    assert len(codes) == 20
    assert set(codes) <= {"DEADLINE_EXCEEDED", "AGENT_UNREACHABLE"}
