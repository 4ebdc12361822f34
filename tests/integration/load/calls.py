"""Many calls at once, as anybody's client can send them, and how each ended."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from keycustody.v1.signing_service_pb2 import SignItem, SignRequest
from tests.integration.agent.raw import code_of

SIGN = "/keycustody.v1.SigningService/Sign"
#: gRPC's own retries: they wait for as long as the agent says.
RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["RESOURCE_EXHAUSTED", "UNAVAILABLE"],
            },
        }
    ]
}


def request(items: int = 1) -> bytes:
    """A request for so many signatures."""
    return SignRequest(
        key="release", algorithm="ECDSA_SHA_256", items=[SignItem(message=b"x")] * items
    ).SerializeToString()


def channel(socket: Path, *, retries: bool = False) -> grpc.aio.Channel:
    """A connection of its own."""
    return grpc.aio.insecure_channel(
        f"unix:{socket}",
        options=[
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", int(retries)),
            *([("grpc.service_config", json.dumps(RETRIES))] if retries else ()),
        ],
    )


Ended = tuple[str, float | None]


async def sign(opened: grpc.aio.Channel, data: bytes, timeout: float | None = 30) -> Ended:
    """Call, and return "OK" or our code, else gRPC's; and when to try again, in seconds."""
    method: Any = opened.unary_unary(SIGN)
    try:
        await method(data, timeout=timeout)
    except grpc.aio.AioRpcError as error:
        trailing = dict(error.trailing_metadata() or ())
        pushback = trailing.get("grpc-retry-pushback-ms")
        code = code_of(error)[1] or error.code().name
        return code, int(pushback) / 1000 if isinstance(pushback, str) else None
    return "OK", None


async def burst(channels: Sequence[grpc.aio.Channel], number: int, data: bytes) -> Counter[str]:
    """So many calls at once; returns how they ended."""
    ended = await asyncio.gather(
        *(sign(channels[one % len(channels)], data) for one in range(number))
    )
    return Counter(code for code, _ in ended)
