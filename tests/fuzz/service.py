"""The agent's services without sockets, processes or a token: bytes of a request in, bytes out.

Dispatch, handlers, rules, catalogue and use cases are the agent's own. The token answers whatever
it is asked with as many zeros as a real one would give, and what is written to the journal is
thrown away, so that nothing but the request decides.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from keycustody import wire
from keycustody.config import ADMIN, load
from keycustody.custody import listing
from keycustody.custody.access.counters import Counters
from keycustody.custody.access.rules import rules_of
from keycustody.custody.admission import Admission
from keycustody.custody.clock import Clock
from keycustody.custody.keys.catalogue import Catalogue, build
from keycustody.custody.lifecycle import Actor, Change, Report
from keycustody.custody.operation import Desk, Office
from keycustody.custody.turns import Turns
from keycustody.errors import KeycustodyError
from keycustody.formats.audit import AuditRecord, Head
from keycustody.service.dispatch import Gate, always, service_handler
from keycustody.service.handlers import admin_services, services
from keycustody.token import api
from tests.unit.custody.evidence import PROFILE, scan, version

_SETTINGS = Path(__file__).parent / "settings.toml"
_POINT = b"\x04" + bytes(64)
#: Take no field, so there is nothing to get wrong, and need a running agent.
_WITHOUT_FIELDS = {"GetStatus", "Reload"}


class Refused(Exception):
    """The call ended with an error, as a client would get it."""

    def __init__(self, error: KeycustodyError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True)
class Method:
    """A method of the agent: its behaviour, and what its messages are."""

    name: str
    behaviour: Any
    request: type[Message]
    response: type[Message]


class Service:
    """Every method of the agent that takes something."""

    def __init__(self) -> None:
        settings = load(_SETTINGS)
        found = [
            one
            for name, key in settings.keys.items()
            for one in version(name, 1, key, seed=len(name))
        ]
        catalogue = _Fixed(build(scan(*found), settings.keys, PROFILE))
        rules = rules_of(settings)
        office = Office(
            Desk(
                rules,
                catalogue,
                _Zeros(),
                _Nowhere(),
                Clock(),
                Counters(),
                Turns(4, 4),
                plain_delivery=True,
            )
        )
        admission = Admission(rules.limits, lambda _seconds: None)
        never: Any = None  # _WITHOUT_FIELDS
        self._loop = asyncio.new_event_loop()
        self.methods = [
            *_methods(_gate("fuzz", office, admission), services(office)),
            *_methods(
                _gate(ADMIN, office, admission),
                admin_services(office, never, never, cast("Any", _Obedient())),
            ),
        ]

    def call(self, method: Method, data: bytes) -> Message:
        """Call a method with these bytes. Raises `Refused`."""
        call = _Call(data)
        try:
            answer = self._loop.run_until_complete(method.behaviour(None, call))
        finally:
            call.end()
        return method.response.FromString(answer)


def _gate(principal: str, office: Office, admission: Admission) -> Gate:
    return Gate(always(principal), admission, office.limits, partial(listing.reject, office))


def _methods(gate: Gate, offered: Any) -> list[Method]:
    found = []
    for service, handlers in offered.items():
        handler = service_handler(service, handlers, gate)
        for method in service.methods:
            if method.name in _WITHOUT_FIELDS:
                continue
            details = _Details(f"/{service.full_name}/{method.name}")
            served: Any = handler.service(details)
            found.append(
                Method(
                    method.name,
                    served.stream_unary,
                    GetMessageClass(method.input_type),
                    GetMessageClass(method.output_type),
                )
            )
    return found


@dataclass(frozen=True)
class _Details(grpc.HandlerCallDetails):
    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


class _Call:
    """As much of a gRPC call as dispatch asks for."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._after: list[Callable[[Any], None]] = []

    def time_remaining(self) -> float | None:
        return None

    async def read(self) -> bytes:
        return self._data

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._after.append(callback)

    def end(self) -> None:
        for callback in self._after:
            callback(self)

    async def abort(self, code: grpc.StatusCode, message: str, trailing_metadata: Any = ()) -> None:
        raise Refused(wire.from_rpc_error(code, message, trailing_metadata))


@dataclass(frozen=True)
class _Fixed:
    catalogue: Catalogue

    def current(self) -> Catalogue:
        return self.catalogue


@dataclass(frozen=True)
class _Nowhere:
    head: Head = field(default_factory=lambda: Head(0, ""))

    def append(self, record: AuditRecord, *, under_way: int = 0) -> "asyncio.Future[None]":
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class _Zeros:
    """Answers each request with as much as a token would."""

    async def call(self, request: api.Request[Any], *, timeout: float) -> Any:
        delivered = api.Delivered(sealed=bytes(40), delivery_point=_POINT)
        match request:
            case api.Sign(inputs=items) | api.Agree(points=items) | api.Decrypt(ciphertexts=items):
                return api.Outputs([bytes(64)] * len(items))
            case api.RewrapSessionKeys(wrapped=items):
                return api.Outputs([bytes(72)] * len(items))
            case api.UnwrapSessionKeys(wrapped=items):
                return api.Unwrapped([delivered] * len(items))
            case api.GenerateSessionKey():
                return api.SessionKey(bytes(72), delivered)
        raise AssertionError(f"no request makes the agent ask for {type(request).__name__}")


class _Obedient:
    """Changes nothing, and says so."""

    async def run(self, change: Change, actor: Actor, *, dry_run: bool = False) -> Report:
        return Report((), ())
