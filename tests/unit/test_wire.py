"""What gRPC's own refusals mean: it has one status for two of them."""

import grpc
import pytest

from keycustody import wire
from keycustody.errors import KeycustodyError, MessageTooLarge, Overloaded


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("CLIENT: Sent message larger than max (9 vs. 8)", MessageTooLarge),
        ("SERVER: Received message larger than max (9 vs. 8)", MessageTooLarge),
        ("Too many pending requests for this server", Overloaded),
        ("", Overloaded),
    ],
)
def test_too_large_is_not_too_many(words: str, meant: type[KeycustodyError]) -> None:
    error = wire.from_rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, words, ())
    assert type(error) is meant
