"""From bytes to a handler and back: what every method has in common, once.

Deserialisation is done here, not by gRPC, because gRPC answers malformed bytes with UNKNOWN and
Python's own words. So every error of `keycustody.errors` becomes its status with a code and a
request id, and anything else becomes INTERNAL, with the details in the log only.

Reading is done here, too, and only when a request's turn has come (`keycustody.custody.admission`):
gRPC reads the message of a unary method before it asks anybody. So methods are registered as if
requests were streams, which is the same on the wire when one message is sent.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from keycustody import wire
from keycustody.config import Limits
from keycustody.custody.admission import Admission, Place
from keycustody.custody.identity.judge import Known
from keycustody.custody.operation import Caller
from keycustody.errors import (
    InternalError,
    InvalidRequest,
    KeycustodyError,
    TokenUnavailable,
    Unauthenticated,
)
from keycustody.service.arrivals import Arrivals

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Caller], Awaitable[Message]]
#: Tells who is calling, by what holds now.
Identify = Callable[[Context], Known]
#: Records a request that could not be understood; raises its error.
Reject = Callable[[Caller, str, KeycustodyError], Awaitable[None]]

#: Top-level fields of a request: items (4,096 at most), context pairs (64), and some single ones.
_MAX_FIELDS = 4096 + 64 + 32
#: A request this small cannot hold enough items to matter.
_ROOMY_BYTES = 64 * 1024
#: Seconds that an answer may take to be sent to a caller that set no deadline of its own.
_SENDING_SECONDS = 10.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Gate:
    """How one listener knows its callers, at each call, how much is let in, and for how long."""

    identify: Identify
    admission: Admission
    limits: Callable[[], Limits]
    reject: Reject
    arrivals: Arrivals = field(default_factory=Arrivals)

    def caller(
        self, context: Context, remaining: float | None
    ) -> tuple[Caller, Unauthenticated | None]:
        """Return who is calling, with a fresh request id; and, if it is nobody, the refusal.
        `remaining`: seconds until the caller's own deadline."""
        allowed = self.limits().deadline_seconds
        seconds = allowed if remaining is None else min(remaining, allowed)
        known = self.identify(context)
        caller = Caller(
            known.principal, known.via, os.urandom(16).hex(), time.monotonic() + seconds
        )
        return caller, Unauthenticated(known.refusal) if known.refusal else None


def always(principal: str) -> Identify:
    """The kernel let the caller through to a socket that is this principal's alone."""
    known = Known(principal, "socket")
    return lambda _context: known


def service_handler(
    service: ServiceDescriptor, handlers: object, gate: Gate
) -> grpc.GenericRpcHandler:
    """Return a gRPC handler for a whole service: each of its methods is the method of `handlers`
    of the same name, which must exist."""
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        method.name: grpc.stream_unary_rpc_method_handler(
            _behaviour(
                method.name,
                GetMessageClass(method.input_type),
                getattr(handlers, method.name),
                gate,
            )
        )
        for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _behaviour(
    method: str, request_type: type[Message], handler: Handler, gate: Gate
) -> Callable[[object, Context], Awaitable[bytes]]:
    async def behaviour(_unread: object, context: Context) -> bytes:
        remaining = context.time_remaining()
        caller, refusal = gate.caller(context, remaining)
        try:
            if refusal is not None:
                raise await recorded(gate, caller, method, refusal)
            place = gate.admission.enter(caller.principal)
            # The stubs take nothing but an instance of a class of theirs that nobody has.
            context.add_done_callback(place.leave)  # type: ignore[arg-type]
            _end_late(context, caller, remaining)
            if not place.turn_at_once():
                await place.turn(caller.remaining())
            try:
                data = await _arrived(context, gate, caller, place)
                request = None if _crowded(data) else _parsed(request_type, data)
                if request is None:
                    raise await recorded(gate, caller, method, _not_a(request_type))
                answer = (await handler(request, caller)).SerializeToString()
                place.answer(len(answer))
                return answer
            finally:
                place.rest()
        except KeycustodyError as error:
            failure = error
            _log_cause(error, caller, method)
        except Exception:  # noqa: BLE001 - the boundary: a caller gets a code and an id, no more
            _log.exception("request.failed", request=caller.request, method=method)
            failure = InternalError("The agent failed; its log has the request id.")
        await abort(context, caller, failure)
        raise AssertionError("abort does not return")

    return behaviour


async def _arrived(context: Context, gate: Gate, caller: Caller, place: Place) -> bytes:
    """Return the request's bytes, as soon as they are there.

    A call that ends without them asked for nothing, so that there is nothing to record.
    """
    seconds = min(gate.limits().arrival_seconds, caller.remaining())
    data = await gate.arrivals.read(context, seconds)
    place.hold(len(data))
    return data


def _end_late(context: Context, caller: Caller, remaining: float | None) -> None:
    """Have a call end by itself that nothing else ends: gRPC does it at the caller's own deadline,
    and without one, a caller that does not read would keep its answer here for ever."""
    if remaining is None:
        task = asyncio.current_task()
        assert task is not None
        late = asyncio.get_running_loop().call_later(
            caller.remaining() + _SENDING_SECONDS, task.cancel
        )
        context.add_done_callback(lambda _context: late.cancel())  # type: ignore[arg-type]


def _parsed(request_type: type[Message], data: bytes) -> Message | None:
    try:
        return request_type.FromString(data)
    except DecodeError:
        return None


def _log_cause(error: KeycustodyError, caller: Caller, method: str) -> None:
    """What the module said is for operators only, and found by the request's id."""
    if isinstance(error, InternalError | TokenUnavailable) and error.__cause__ is not None:
        _log.warning(
            "request.token_failed",
            request=caller.request,
            method=method,
            code=error.code,
            cause=str(error.__cause__),
        )


async def abort(context: Context, caller: Caller, failure: KeycustodyError) -> None:
    """End the call with the error's status, code and the request's id."""
    failure.request_id = caller.request
    await context.abort(
        wire.status_code(failure),
        failure.message,
        trailing_metadata=wire.trailing_metadata(failure),
    )


def _crowded(data: bytes) -> bool:
    """Does a large request have more fields than any limit lets it have?

    An empty item is two bytes on the wire and 130 in memory, so this is asked before it is parsed.
    Only field boundaries are looked at; what is malformed is left to the parser.
    """
    position, size = 0, len(data)
    if size <= _ROOMY_BYTES:
        return False
    for _ in range(_MAX_FIELDS):
        if position >= size:
            return False
        tag, position = _varint(data, position)
        match tag & 7:
            case 0:
                _, position = _varint(data, position)
            case 1:
                position += 8
            case 2:
                length, position = _varint(data, position)
                position += length
            case 5:
                position += 4
            case _:
                return False
    return position < size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a base-128 varint of at most 10 bytes, and where it ends."""
    value = 0
    for shift, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, position + shift + 1
    return value, len(data)


def _not_a(request_type: type[Message]) -> InvalidRequest:
    return InvalidRequest(
        f"The request is not a {request_type.DESCRIPTOR.full_name} message within the limits."
    )


async def recorded(
    gate: Gate, caller: Caller, method: str, error: KeycustodyError
) -> KeycustodyError:
    """Record a refusal; returns it, or why it could not be recorded."""
    try:
        await gate.reject(caller, method, error)
    except KeycustodyError as raised:
        return raised
    return error
