"""Well-formed messages with odd values in any field get a code, and never that of our own fault."""

from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keycustody.errors import BY_CODE
from keycustody.v1.admin_service_pb2 import ChangeKeysRequest
from tests.integration.agent.raw import ADMIN_METHODS, FILES, METHODS, channel, code_of, send
from tests.integration.command import Command

TEXT = st.sampled_from(
    [
        "",
        "release",
        "invoices",
        "hpke",
        "release.v1",
        "keycustody:audit",
        "*",
        "\x00",
        "\u202e",
        "k" * 300,
        "ECDSA_SHA_256",
        "ED25519",
        "RSA_OAEP_SHA_1",
        "RSA_PSS_SHA_256",
    ]
)
BYTES = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([bytes(n) for n in (20, 32, 48, 65, 72, 256, 4096)]),
    st.just(b"\x04" + bytes(64)),
)
NUMBER = st.sampled_from([0, 1, 2, 3, 2**31 - 1, 2**32 - 1])
REQUESTS = {
    f"/{service.full_name}/{method.name}": method.input_type
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
#: A reload has no fields, and what it does is the settings file's matter.
ASKED = [method for method in METHODS if not method.endswith("/Reload")]


def value(draw: Any, field: FieldDescriptor) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return message(draw, field.message_type)
        case FieldDescriptor.TYPE_STRING:
            return draw(TEXT)
        case FieldDescriptor.TYPE_BYTES:
            return draw(BYTES)
        case FieldDescriptor.TYPE_BOOL:
            return draw(st.booleans())
        case FieldDescriptor.TYPE_ENUM:
            return draw(st.integers(0, 5))
    return draw(NUMBER)


def message(draw: Any, descriptor: Any) -> Message:
    made: dict[str, Any] = {}
    for field in descriptor.fields:
        if draw(st.integers(0, 4)) == 0:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            made[field.name] = draw(st.dictionaries(TEXT, TEXT, max_size=3))
        elif field.is_repeated:
            made[field.name] = [value(draw, field) for _ in range(draw(st.integers(0, 3)))]
        else:
            made[field.name] = value(draw, field)
    return GetMessageClass(descriptor)(**made)


@st.composite
def requests(draw: Any) -> tuple[str, Message]:
    method = draw(st.sampled_from(ASKED))
    made = message(draw, REQUESTS[method])
    if isinstance(made, ChangeKeysRequest):
        made.dry_run = True
    return method, made


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(asked=requests())
def test_each_gets_an_answer_or_a_code(keycustody: Command, asked: tuple[str, Message]) -> None:
    method, request = asked
    with channel(keycustody.socket("admin" if method in ADMIN_METHODS else "demo")) as opened:
        code = outcome(opened, method, request)
    assert code in {"OK", *BY_CODE} - {"INTERNAL", "TOKEN_UNAVAILABLE", "AUDIT_UNAVAILABLE"}


def outcome(opened: grpc.Channel, method: str, request: Message) -> str:
    try:
        send(opened, method, request.SerializeToString())
    except grpc.RpcError as error:
        return code_of(error)[1]
    return "OK"
