"""A gRPC server that does nothing, on the same stack as the agent: the floor of any agent's cost.

Run as `python -m benchmarks.noop SOCKET`.
"""

import asyncio
import sys

import grpc
import uvloop

METHOD = "/benchmarks.Noop/Call"


async def _call(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return request


async def _serve(path: str) -> None:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(_call)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("benchmarks.Noop", {"Call": handler})]
    )
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
