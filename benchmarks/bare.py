"""An agent of gRPC, a pipe and worker processes, and nothing else: no identity, no decision, no
record, no metrics, and one key that signs. What custody costs is measured against it.

Run as `python -m benchmarks.bare SOCKET`, on the throwaway token.
"""

import asyncio
import hashlib
import sys

import grpc
import uvloop

from benchmarks import agents
from keycustody.token.api import KeyRef, Scan, Sign
from keycustody.token.pin_guard import PinGuard
from keycustody.token.pool import Pool, PoolSettings
from keycustody.v1.signing_service_pb2 import DESCRIPTOR, SignRequest, SignResponse, SignResult


def pool(workers: int) -> Pool:
    """Workers of the throwaway token, which an agent serves, too."""
    settings = PoolSettings(
        module=agents.MODULE,
        profile="softhsm2",
        label=agents.LABEL,
        environment={"SOFTHSM2_CONF": agents.environment()["SOFTHSM2_CONF"]},
        workers=workers,
    )
    guard = PinGuard(agents.FOLDER / "var" / "state")
    return Pool(settings, lambda: agents.PIN.read_bytes().strip(), guard)


async def _serve(path: str) -> None:
    async with pool(2) as token:
        scan = await token.call(Scan(), timeout=10)
        (key,) = (one for one in scan.objects if (one.kind, one.label) == ("public", "release.v1"))
        ref = KeyRef(key.label, key.id, "sign", "EC_P256", hashlib.sha256(key.public_key).digest())

        async def sign(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            request = SignRequest.FromString(data)
            digests = [item.digest for item in request.items]
            made = await token.call(Sign(ref, request.algorithm, digests), timeout=10)
            results = [SignResult(signature=one) for one in made.items if isinstance(one, bytes)]
            return SignResponse(version=1, results=results).SerializeToString()

        service = DESCRIPTOR.services_by_name["SigningService"].full_name
        handlers = {"Sign": grpc.unary_unary_rpc_method_handler(sign)}
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        while token.ready < token.wanted:  # noqa: ASYNC110 (nobody else has to know)
            await asyncio.sleep(0.05)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
