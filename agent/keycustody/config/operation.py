"""How the agent runs: limits, the audit journal, TLS listeners, metrics."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ByteSize, Field, ValidationInfo, model_validator

from keycustody.config.fields import PathSetting, Section, absolute
from keycustody.config.grants import RateSettings


class Limits(Section):
    """What one request may cost. Over a limit, it is refused before the token sees it."""

    message_bytes: ByteSize = Field(
        ByteSize(2**20),
        ge=1024,
        le=16 * 2**20,
        description="One message to sign. Larger ones are hashed by the client.",
    )
    request_bytes: ByteSize = Field(
        ByteSize(8 * 2**20),
        ge=64 * 2**10,
        le=32 * 2**20,
        description="One request on the wire; below the pipe's own limit of 64 MiB.",
    )
    items: int = Field(1024, ge=1, le=4096, description="Items of one request.")
    deadline_seconds: float = Field(
        30.0,
        gt=0,
        le=600,
        description="The longest that a request may take, also when the client allows more.",
    )
    queue: int = Field(
        10_000,
        ge=1,
        le=100_000,
        description="Requests that are accepted and not over, of all principals. More are refused "
        "at once, with `OVERLOADED` and when to try again: they would not be answered within the "
        "10 seconds that clients usually wait.",
    )
    queue_per_principal: int = Field(
        5_000,
        ge=1,
        le=100_000,
        description="The same for one principal, so that one alone does not fill `queue`.",
    )
    concurrency: int = Field(
        64,
        ge=1,
        le=4096,
        description="Requests that are read and worked at; others wait, unread, and principals "
        "take turns. Enough to keep the token and the journal busy; times `request_bytes`, what "
        "requests can hold in memory.",
    )
    concurrency_per_principal: int = Field(
        32, ge=1, le=4096, description="The same for one principal, so that places are left."
    )
    bytes_in_flight: ByteSize = Field(
        ByteSize(256 * 2**20),
        ge=64 * 2**10,
        le=64 * 2**30,
        description="Bytes of requests that are worked at and of answers that were not taken yet.",
    )
    bytes_per_principal: ByteSize = Field(
        ByteSize(128 * 2**20),
        ge=64 * 2**10,
        le=64 * 2**30,
        description="The same for one principal.",
    )
    connections: int = Field(
        1024,
        ge=1,
        le=65_536,
        description="Connections of one listener; more are closed. Each has a file descriptor.",
    )
    arrival_seconds: float = Field(
        5.0,
        gt=0,
        le=600,
        description="A request whose turn has come must be there within this: it is in the way of "
        "others of its principal.",
    )
    drain_seconds: float = Field(
        10.0,
        ge=0,
        le=600,
        description="What was accepted gets so long to be answered when the agent is told to stop.",
    )
    scan_seconds: float = Field(
        15.0,
        ge=1,
        le=3600,
        description="Time between scans of the token. After three intervals without a good scan, "
        "the agent stops serving. A revocation by another agent takes effect within one.",
    )
    self_test_seconds: float = Field(
        300.0, ge=1, le=86_400, description="Time between self-tests of every key."
    )

    @model_validator(mode="after")
    def _room_for_one(self) -> "Limits":
        if min(self.bytes_in_flight, self.bytes_per_principal) < self.request_bytes:
            raise ValueError(
                "bytes_in_flight and bytes_per_principal must be at least request_bytes"
            )
        return self


class AuditSettings(Section):
    """The journal in `agent.state_dir`."""

    rotate_bytes: ByteSize = Field(
        ByteSize(256 * 2**20),
        ge=4096,
        le=2**40,
        description="A file that is this large is followed by a new one.",
    )
    head_records: int = Field(
        1000, ge=1, le=1_000_000, description="The head is signed after so many records."
    )
    head_seconds: float = Field(
        60.0, ge=0.1, le=86_400, description="And so long after a record that no head covers yet."
    )
    denials: RateSettings = Field(
        default_factory=lambda: RateSettings(per_second=1, burst=20),
        description="Denials of one principal that get a record each; more are counted, and get "
        "one together.",
    )


def _listening(address: str, info: ValidationInfo) -> str:
    """Return where to listen in gRPC's words: `HOST:PORT`, or `unix:` and an absolute path."""
    kind, _, path = address.partition(":")
    if kind == "unix" and path:
        return f"unix:{absolute(Path(path), info)}"
    found = _HOST_PORT.fullmatch(address)
    if found is None or not 1 <= int(found["port"]) <= _MAX_PORT:
        raise ValueError("must be HOST:PORT, [IPV6]:PORT or unix:PATH")
    if found["ipv6"] is not None:
        ipaddress.IPv6Address(found["ipv6"])
    return address


_MAX_PORT = 65_535
_HOST_PORT = re.compile(
    r"(\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?))"
    r":(?P<port>[0-9]{1,5})"
)


class TlsSettings(Section):
    """Listeners with mutual TLS 1.3. The files are read again when they change."""

    listen: tuple[Annotated[str, AfterValidator(_listening)], ...] = Field(
        min_length=1,
        max_length=16,
        description="Where: `HOST:PORT`, `[IPV6]:PORT`, or `unix:PATH`.",
    )
    certificate: PathSetting = Field(
        description="The agent's certificate, PEM, and what is between it and its authority. It "
        "needs a DNS name, or clients refuse it."
    )
    key: PathSetting = Field(description="Its private key, PEM; only the agent's user may read it.")
    client_ca: PathSetting = Field(
        description="Authorities whose certificates identify callers, PEM."
    )
    crl: PathSetting | None = Field(
        None, description="Their revocation lists, PEM. One that expired lets nobody in."
    )


class MetricsSettings(Section):
    """Where Prometheus may ask: exactly one of the two."""

    socket: PathSetting | None = Field(None, description="A Unix socket, for the agent's group.")
    address: str | None = Field(
        None,
        pattern=r"^(127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5}$",
        description="A loopback address and port.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "MetricsSettings":
        if (self.socket is None) == (self.address is None):
            raise ValueError("name exactly one of socket, address")
        return self
