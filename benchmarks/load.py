"""Many clients at once, as light as they can be: one process, one connection each, bytes made once.

Run by `benchmarks.children.asked`. A question names a socket, a method, the request in hex, how
many clients call it and for how many seconds; the answer has the calls a second, their median and
99th percentile in seconds, and the last response in hex.
"""

import asyncio
import time
from typing import Any

import grpc
import uvloop

from benchmarks.children import serve

_Method = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


class Load:
    """Connections that are kept from question to question."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._channels: dict[str, list[grpc.aio.Channel]] = {}

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Do what one question asks for."""
        return self._runner.run(self._measured(**question))

    async def _measured(
        self, socket: str, method: str, request: str, clients: int, seconds: float
    ) -> dict[str, Any]:
        channels = self._channels.setdefault(socket, [])
        while len(channels) < clients:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels.append(grpc.aio.insecure_channel(f"unix:{socket}", options))
        methods = [channel.unary_unary(method) for channel in channels[:clients]]
        data = bytes.fromhex(request)
        last = (await asyncio.gather(*(call(data, timeout=60) for call in methods)))[-1]
        taken: list[float] = []
        started = time.perf_counter()
        await asyncio.gather(*(_until(call, data, started + seconds, taken) for call in methods))
        rate = len(taken) / (time.perf_counter() - started)
        taken.sort()
        return {
            "rate": rate,
            "p50": taken[len(taken) // 2],
            "p99": taken[int(len(taken) * 0.99)],
            "response": last.hex(),
        }


async def _until(call: _Method, data: bytes, end: float, taken: list[float]) -> None:
    while (before := time.perf_counter()) < end:
        await call(data, timeout=60)
        taken.append(time.perf_counter() - before)


if __name__ == "__main__":
    serve(Load().answer)
