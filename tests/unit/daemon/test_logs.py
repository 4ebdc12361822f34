"""A log that cannot be written is lost, and nothing else is."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from keycustody.daemon.logs import log_to_stderr


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_a_full_disk_does_not_reach_who_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        stderr = io.TextIOWrapper(full, write_through=True)
        with pytest.raises(OSError, match="No space left"):
            stderr.write("so it fails")
        monkeypatch.setattr(sys, "stderr", stderr)
        counts = log_to_stderr()
        log = structlog.get_logger("test")
        log.warning("first")
        log.warning("second")
        assert counts["warning"] == 2
        stderr.detach()
