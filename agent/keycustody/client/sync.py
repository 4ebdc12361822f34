"""The synchronous driver: runs flows over one gRPC channel, with a deadline on every call.

All that an agent can be asked is in `calls` and `flows`; here it is only sent. An asyncio driver is
the same with `await`. Every error that leaves is one of `keycustody.errors`.
"""

from threading import Lock
from typing import Any

import grpc

from keycustody.client import channel
from keycustody.client.calls import Call, Flow, R, Wait
from keycustody.client.channel import Route
from keycustody.errors import AgentUnreachable, InvalidRequest, KeycustodyError


class Driver:
    """One channel to one agent. Thread-safe."""

    def __init__(self, route: Route, timeout: float) -> None:
        self.path = route.path
        self._timeout = timeout
        self._reach = route
        self._lock = Lock()
        self._channel: grpc.Channel | None = None
        self._methods: dict[str, Any] = {}
        self.closed = False

    def close(self) -> None:
        """Close the channel; calls under way are cancelled. Idempotent."""
        with self._lock:
            self.closed = True
            if self._channel is not None:
                self._channel.close()

    def run(self, flow: Flow[R]) -> R:
        """Run a flow to its end."""
        try:
            step = next(flow)
            while True:
                try:
                    answer = self._take(step)
                except KeycustodyError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            result: R = stop.value
            return result
        except UnicodeEncodeError as error:
            raise InvalidRequest("A name or text holds what UTF-8 cannot carry.") from error
        finally:
            # Interrupted in the middle: what the flow had claimed is given up; nobody waits on.
            flow.close()

    def _take(self, step: Call[Any] | Wait) -> Any:
        if isinstance(step, Wait):
            return step.future.result()
        try:
            response = self._method(step)(step.request, timeout=self._timeout)
        except grpc.RpcError as failed:
            raise channel.error_of(failed, self._reach) from failed
        except ValueError as error:  # the channel was closed by another thread just now
            raise AgentUnreachable("This connection was closed; call connect() again.") from error
        return step.result(response)

    def _method(self, call: Call[Any]) -> Any:
        with self._lock:
            if self.closed:
                raise AgentUnreachable("This connection was closed; call connect() for another.")
            if self._reach.check() or self._channel is None:
                # A new channel, since the old one may be waiting before it tries again. It is not
                # closed: calls of other threads may be under way, and end as they will.
                self._channel = self._reach.channel()
                self._methods = {}
            method = self._methods.get(call.path)
            if method is None:
                method = self._methods[call.path] = self._channel.unary_unary(
                    call.path,
                    request_serializer=type(call.request).SerializeToString,
                    response_deserializer=call.response.FromString,
                )
            return method
