"""Scrapes by those who ask well, badly, slowly, or a thousand at once."""

import asyncio
import resource
import socket
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from keycustody.config import MetricsSettings
from keycustody.errors import InsecurePermissions, SocketUnusable, StateLocked
from keycustody.telemetry import endpoint

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


class Large:
    """A metric with a megabyte of samples."""

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("keycustody_large", "Large.", labels=["number"])
        for number in range(10_000):
            family.add_metric([f"{number:090}"], 1)
        return [family]


def on_socket(folder: Path, work: Callable[[Path], Awaitable[None]]) -> None:
    path = folder / "metrics" / "metrics.sock"
    # Not `mode=`, which the umask changes.
    path.parent.mkdir(exist_ok=True)
    path.parent.chmod(0o750)

    async def scenario() -> None:
        async with endpoint.serving(MetricsSettings(socket=path), Large()):
            await work(path)

    asyncio.run(scenario())


async def ask(path: Path, request: bytes = GET) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def until_served(path: Path) -> None:
    async with asyncio.timeout(20):
        while (await ask(path))[9:12] != b"200":  # noqa: ASYNC110 (it is the endpoint's clock that counts)
            await asyncio.sleep(0.01)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_scrape_gets_all_of_it_on_a_socket_for_the_group(tmp_path: Path) -> None:
    async def work(path: Path) -> None:
        head, _, body = (await ask(path)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Length: %d\r\n" % len(body) in head
        assert body.count(b"keycustody_large{") == 10_000
        assert mode(path) == 0o660

    on_socket(tmp_path, work)
    assert not (tmp_path / "metrics" / "metrics.sock").exists()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/../secret HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/2\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", b""),
    ],
    ids=["root", "path", "method", "no version", "version", "TLS", "too long"],
)
def test_anything_else_is_refused_without_an_echo(
    tmp_path: Path, request_: bytes, status: bytes
) -> None:
    async def work(path: Path) -> None:
        answer = await ask(path, request_)
        assert answer[9:12] == status
        assert answer.partition(b"\r\n\r\n")[2] == b""
        assert (await ask(path))[9:12] == b"200"

    on_socket(tmp_path, work)


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many as there may be: both ends of every connection are here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
def test_a_thousand_at_once_are_bounded_and_the_next_is_served(tmp_path: Path) -> None:
    async def work(path: Path) -> None:
        opened = []
        for _ in range(1000):
            try:
                opened.append(await asyncio.open_unix_connection(path))
            except OSError:
                break  # the kernel's own queue is bounded, too
        for _, writer in opened:
            writer.close()
        await until_served(path)

    on_socket(tmp_path, work)


@pytest.mark.parametrize("sent", [b"", b"GET /met", GET], ids=["silent", "halting", "not reading"])
def test_who_is_slow_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(endpoint, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(endpoint, "_REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(endpoint, "_CONNECTIONS", 1)

    async def work(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as slow:
            slow.connect(str(path))
            slow.send(sent)
            # It has the only place until it is dropped.
            await until_served(path)

    on_socket(tmp_path, work)


def test_no_second_agent_and_no_open_folder(tmp_path: Path) -> None:
    async def second(path: Path) -> None:
        async with endpoint.serving(MetricsSettings(socket=path), Large()):
            raise AssertionError

    async def work(path: Path) -> None:
        with pytest.raises(StateLocked):
            await second(path)

    on_socket(tmp_path, work)
    (tmp_path / "metrics").chmod(0o777)
    with pytest.raises(InsecurePermissions):
        asyncio.run(second(tmp_path / "metrics" / "metrics.sock"))


def test_loopback_is_served_and_a_taken_port_is_an_error() -> None:
    async def scenario() -> None:
        taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = taken.sockets[0].getsockname()[1]
        settings = MetricsSettings(address=f"127.0.0.1:{port}")
        with pytest.raises(SocketUnusable):
            async with endpoint.serving(settings, Large()):
                raise AssertionError
        taken.close()
        await taken.wait_closed()
        async with endpoint.serving(settings, Large()):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "10.0.0.1:1", "[::]:1", "host:1", "127.0.0.1"])
def test_only_loopback_can_be_named(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        MetricsSettings(address=address)
