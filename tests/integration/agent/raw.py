"""gRPC without our client: what anybody with a socket can send."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from keycustody.v1 import (
    admin_service_pb2,
    agreement_service_pb2,
    key_service_pb2,
    session_key_service_pb2,
    signing_service_pb2,
)

FILES = (
    key_service_pb2,
    signing_service_pb2,
    agreement_service_pb2,
    session_key_service_pb2,
    admin_service_pb2,
)
#: Every method of ours, as gRPC names it.
METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
ADMIN_METHODS = [method for method in METHODS if "AdminService" in method]

#: P-256's generator (SEC 2, 2.4.2): as good a valid point as any.
BASE_POINT = bytes.fromhex(
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)


@contextmanager
def channel(socket: Path) -> Iterator[grpc.Channel]:
    """A channel that sends whatever it is given."""
    options = [("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(f"unix:{socket}", options=options) as opened:
        yield opened


def send(opened: grpc.Channel, method: str, data: bytes) -> bytes:
    """Call a method with these bytes, and return the answer's bytes."""
    call: Callable[..., bytes] = opened.unary_unary(method)
    return call(data, timeout=20)


def code_of(error: Any) -> tuple[grpc.StatusCode, str, str]:
    """The status, our stable code and the request id of a failed call."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            info = error_details_pb2.ErrorInfo()
            assert status_pb2.Status.FromString(value).details[0].Unpack(info)
            assert info.domain == "keycustody"
            return error.code(), info.reason, info.metadata["request_id"]
    return error.code(), "", ""
