"""Many clients at once, as light as they can be: one process, one connection each, bytes made once.

Run as `python -m benchmarks.load SOCKET CLIENTS`. Reads seconds from stdin, a line each, signs for
that long, and answers with the signatures a second.
"""

import asyncio
import sys
import time

import grpc
import uvloop

from keycustody.v1.signing_service_pb2 import SignItem, SignRequest

_METHOD = "/keycustody.v1.SigningService/Sign"
_REQUEST = SignRequest(
    key="release", algorithm="ECDSA_SHA_256", items=[SignItem(digest=bytes(32))]
).SerializeToString()


async def _serve(socket: str, clients: int) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"unix:{socket}", options) for _ in range(clients)]
    methods = [channel.unary_unary(_METHOD) for channel in channels]
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        sys.stdout.write(f"{await _rate(methods, float(line))}\n")
        sys.stdout.flush()
    for channel in channels:
        await channel.close()


async def _rate(
    methods: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]], seconds: float
) -> float:
    started = time.perf_counter()

    async def client(method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]) -> int:
        done = 0
        while time.perf_counter() - started < seconds:
            await method(_REQUEST, timeout=30)
            done += 1
        return done

    done = sum(await asyncio.gather(*map(client, methods)))
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
