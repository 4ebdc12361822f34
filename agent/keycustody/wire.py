"""Errors on the wire: the one table, both directions.

Towards the client, an error of `keycustody.errors` becomes a gRPC status whose details hold a
`google.rpc.ErrorInfo` (reason: the stable code; domain: `DOMAIN`; metadata `request_id`). Back, the
code selects the class again. A status without our details comes from gRPC itself, and `_CORE` says
what it means to a caller. Nothing else in the project looks at a status code.
"""

import math
from collections.abc import Sequence
from contextlib import suppress

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from keycustody import errors
from keycustody.errors import BY_CODE, KeycustodyError
from keycustody.v1 import common_pb2

DOMAIN = "keycustody"
DETAILS_KEY = "grpc-status-details-bin"
#: What gRPC's own retries of a caller wait for, in milliseconds; -1: there are none (gRFC A6).
PUSHBACK_KEY = "grpc-retry-pushback-ms"

_S = grpc.StatusCode

#: Error class to status; a class that is not here takes its nearest ancestor's.
_STATUS: dict[type[KeycustodyError], grpc.StatusCode] = {
    KeycustodyError: _S.INTERNAL,
    errors.InvalidRequest: _S.INVALID_ARGUMENT,
    errors.MalformedEnvelope: _S.INVALID_ARGUMENT,
    errors.DecryptionFailed: _S.INVALID_ARGUMENT,
    errors.WrappedKeyRejected: _S.INVALID_ARGUMENT,
    errors.PermissionDenied: _S.PERMISSION_DENIED,
    errors.Unauthenticated: _S.UNAUTHENTICATED,
    errors.RateExceeded: _S.RESOURCE_EXHAUSTED,
    errors.BudgetExceeded: _S.RESOURCE_EXHAUSTED,
    errors.PolicyViolation: _S.FAILED_PRECONDITION,
    errors.KeyRevoked: _S.FAILED_PRECONDITION,
    errors.KeyUnhealthy: _S.FAILED_PRECONDITION,
    errors.InvalidTransition: _S.FAILED_PRECONDITION,
    errors.KeyNotFound: _S.NOT_FOUND,
    errors.KeyPurpose: _S.FAILED_PRECONDITION,
    errors.KeyNotTrusted: _S.FAILED_PRECONDITION,
    errors.UnsupportedByToken: _S.FAILED_PRECONDITION,
    errors.TokenNotProvisioned: _S.FAILED_PRECONDITION,
    errors.Overloaded: _S.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: _S.DEADLINE_EXCEEDED,
    errors.Cancelled: _S.CANCELLED,
    errors.Unimplemented: _S.UNIMPLEMENTED,
    errors.ConfigInvalid: _S.FAILED_PRECONDITION,
    errors.InsecurePermissions: _S.FAILED_PRECONDITION,
    errors.SocketUnusable: _S.FAILED_PRECONDITION,
    errors.TokenUnavailable: _S.UNAVAILABLE,
    errors.AuditUnavailable: _S.UNAVAILABLE,
}

#: What a status that gRPC itself made means to a caller, and what to do about it.
_CORE: dict[grpc.StatusCode, tuple[type[KeycustodyError], str]] = {
    _S.DEADLINE_EXCEEDED: (
        errors.DeadlineExceeded,
        "The agent did not answer in time; try again, or give the call a longer deadline.",
    ),
    _S.CANCELLED: (errors.Cancelled, "The call was cancelled."),
    _S.RESOURCE_EXHAUSTED: (
        errors.MessageTooLarge,
        "The request or its answer is over the agent's size limit; send fewer or smaller items.",
    ),
    _S.UNIMPLEMENTED: (
        errors.Unimplemented,
        "Not offered on this socket: operators' commands go to theirs, others to a principal's.",
    ),
    _S.UNAVAILABLE: (
        errors.AgentGone,
        "The agent went away during the call; whether it took effect is not known. Try again.",
    ),
}

#: Only gRPC's words tell a message that is too large from calls that are too many.
_OVERSIZED = "larger than max"


def status_code(error: KeycustodyError) -> grpc.StatusCode:
    """Return the gRPC status of an error."""
    return next(_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS)


def trailing_metadata(error: KeycustodyError) -> tuple[tuple[str, str | bytes], ...]:
    """Return the status details of an error, and when to try again if that is known, ready to be
    sent as trailing metadata."""
    info = error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN)
    if error.request_id:
        info.metadata["request_id"] = error.request_id
    status = status_pb2.Status(code=status_code(error).value[0], message=error.message)
    status.details.add().Pack(info)
    if error.retry_after is not None:
        later = error_details_pb2.RetryInfo()
        later.retry_delay.FromNanoseconds(math.ceil(error.retry_after * 1e9))
        status.details.add().Pack(later)
    details: tuple[tuple[str, str | bytes], ...] = ((DETAILS_KEY, status.SerializeToString()),)
    pushback = _pushback(error)
    return details if pushback is None else (*details, (PUSHBACK_KEY, pushback))


def _pushback(error: KeycustodyError) -> str | None:
    # A quota is the caller's to plan with: repeating would only wait for the deadline, and fill the
    # audit log with denials.
    if isinstance(error, errors.RateExceeded | errors.BudgetExceeded):
        return "-1"
    return None if error.retry_after is None else str(math.ceil(error.retry_after * 1000))


def from_rpc_error(
    code: grpc.StatusCode, message: str, trailing: Sequence[tuple[str, str | bytes]]
) -> KeycustodyError:
    """Return the error that a failed call means. An unknown code keeps its sentence."""
    status = _status(trailing)
    info = error_details_pb2.ErrorInfo()
    if _unpack(status, info) and info.domain == DOMAIN:
        later = error_details_pb2.RetryInfo()
        return BY_CODE.get(info.reason, errors.InternalError)(
            message,
            request_id=info.metadata.get("request_id"),
            retry_after=_seconds(later) if _unpack(status, later) else None,
        )
    if code is _S.RESOURCE_EXHAUSTED and _OVERSIZED not in message:
        return errors.Overloaded("The agent has more calls than it can look at; try again.")
    cls, sentence = _CORE.get(code, (errors.InternalError, ""))
    return cls(sentence or f"The agent's answer was {code.name}, which it does not use itself.")


def _status(trailing: Sequence[tuple[str, str | bytes]]) -> status_pb2.Status:
    """The status of the trailing metadata; an empty one if there is none that can be read."""
    for key, value in trailing:
        if key == DETAILS_KEY and isinstance(value, bytes):
            with suppress(DecodeError):
                return status_pb2.Status.FromString(value)
    return status_pb2.Status()


def _unpack(status: status_pb2.Status, into: Message) -> bool:
    """Whether the status has a detail of that kind, which then is in `into`."""
    with suppress(DecodeError):
        return any(detail.Unpack(into) for detail in status.details)
    return False


def _seconds(later: error_details_pb2.RetryInfo) -> float:
    """Return how long to wait, whatever the agent says."""
    return max(0.0, later.retry_delay.ToNanoseconds() / 1e9)


def item_error(code: str, message: str) -> common_pb2.ItemError:
    """Return one failed item as it is sent."""
    return common_pb2.ItemError(code=code, message=message)


def from_item_error(error: common_pb2.ItemError) -> KeycustodyError:
    """Return one failed item as the error that it means."""
    return BY_CODE.get(error.code, errors.InternalError)(error.message)
