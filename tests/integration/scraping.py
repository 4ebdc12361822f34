"""A running agent's metrics: `[metrics] socket = "../var/run/metrics/metrics.sock"`."""

import socket
import time
from collections.abc import Callable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.command import Command


def scrape(command: Command) -> bytes:
    """What its socket answers, without the head."""
    path = command.folder / "var/run/metrics/metrics.sock"
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(str(path))
        connected.sendall(b"GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n")
        return b"".join(iter(lambda: connected.recv(65536), b"")).partition(b"\r\n\r\n")[2]


def metrics(command: Command) -> dict[str, Metric]:
    """Each metric, by name."""
    text = scrape(command).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def eventually(command: Command, wanted: Callable[[dict[str, Metric]], bool]) -> dict[str, Metric]:
    """Scrape until it is so."""
    deadline = time.monotonic() + 30
    while not wanted(found := metrics(command)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def value(found: dict[str, Metric], name: str, **labels: str) -> float:
    """The value of one sample."""
    samples = [s for s in found[name].samples if s.labels == labels and "_created" not in s.name]
    assert samples, found[name].samples
    return float(samples[0].value)
