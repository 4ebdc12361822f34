"""The gate before services that are not ours: health and reflection.

Their handlers know nothing of principals, so an interceptor asks first. A stream is judged when it
is opened, and not again: all that one tells is whether the agent serves, and what its API is.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from typing import Any

import grpc

from keycustody.service.dispatch import Context, Gate, abort, recorded

_Refuse = Callable[[Context], Awaitable[None]]


class Guard(grpc.aio.ServerInterceptor):
    """Lets known callers through to every service but `ours`, which have the gate themselves."""

    def __init__(self, gate: Gate, ours: Container[str]) -> None:
        self._gate = gate
        self._ours = ours

    async def intercept_service(
        self, continuation: Any, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Return the handler of a call, with the gate before it."""
        handler = await continuation(handler_call_details)
        service, _, method = handler_call_details.method.lstrip("/").partition("/")
        if handler is None or service in self._ours:
            return handler
        refuse = _refusing(self._gate, method)
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            if (behaviour := getattr(handler, kind)) is not None:
                handler = handler._replace(**{kind: _guarded(refuse, behaviour)})
        return handler


def _refusing(gate: Gate, method: str) -> _Refuse:
    async def refuse(context: Context) -> None:
        caller, refusal = gate.caller(context, context.time_remaining())
        if refusal is not None:
            await abort(context, caller, await recorded(gate, caller, method, refusal))

    return refuse


def _guarded(refuse: _Refuse, behaviour: Callable[..., Any]) -> Callable[..., Any]:
    """gRPC looks at what a behaviour is, so a generator stays one and a coroutine too."""

    async def answer(request: Any, context: Context) -> Any:
        await refuse(context)
        return await behaviour(request, context)

    async def answers(request: Any, context: Context) -> AsyncIterator[Any]:
        await refuse(context)
        async for each in behaviour(request, context):
            yield each

    return answers if inspect.isasyncgenfunction(behaviour) else answer
