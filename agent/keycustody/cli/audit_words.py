"""The words that audit records have for operations and results (docs/audit.md), so that a misspelt
one is not mistaken for one that never occurred."""

from collections.abc import Collection
from typing import get_args

from keycustody.config import PURPOSE_OF
from keycustody.custody.lifecycle import Change
from keycustody.errors import BY_CODE, InvalidRequest
from keycustody.formats.audit_head import HEAD
from keycustody.v1 import (
    admin_service_pb2,
    agreement_service_pb2,
    key_service_pb2,
    session_key_service_pb2,
    signing_service_pb2,
)

#: Of health checks and reflection (gRPC's own services).
_GRPC = ("Check", "Watch", "List", "ServerReflectionInfo")
_OTHERS = ("read", "status", "reload", "init", "change-pin", "change", "self-test", HEAD)
#: What a request is called that could not be read, or whose caller is nobody.
_METHODS = tuple(
    method.name
    for file in (
        admin_service_pb2,
        agreement_service_pb2,
        key_service_pb2,
        session_key_service_pb2,
        signing_service_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)

OPERATIONS = (
    *PURPOSE_OF,
    *_OTHERS,
    *(change.operation for change in get_args(Change)),
    *_METHODS,
    *_GRPC,
)
RESULTS = ("OK", *sorted(BY_CODE))


def check(what: str, word: str | None, known: Collection[str]) -> None:
    """Raise `InvalidRequest` for a word that no record has."""
    if word is not None and word not in known:
        raise InvalidRequest(f"No record has {what} {word!r}; there are: {', '.join(known)}.")
