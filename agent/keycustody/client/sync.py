"""The synchronous driver: runs flows over one gRPC channel, with a deadline on every call.

All that an agent can be asked is in `calls` and `flows`; here it is only sent. `aio_driver` is the
same with `await`. Every error that leaves is one of `keycustody.errors`.
"""

import time
from threading import Event, Lock, Thread
from typing import Any

import grpc

from keycustody.client import channel
from keycustody.client.calls import Beside, Call, Flow, R, Step, Wait
from keycustody.client.channel import Route
from keycustody.client.process import Home
from keycustody.client.retry import Attempts, Timing
from keycustody.errors import AgentUnreachable, InvalidRequest, KeycustodyError


class Connection:
    """One channel to one agent, made anew when the agent is another. Thread-safe."""

    def __init__(self, route: Route) -> None:
        self.path = route.path
        self.closing = Event()
        self._home = Home()
        self._route = route
        self._lock = Lock()
        self._looking = Lock()
        self._channel: grpc.Channel | None = None
        self._methods: dict[str, Any] = {}

    @property
    def here(self) -> bool:
        """Whether this process made the channel, or nobody did yet."""
        return self._home.here

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.closing.is_set()

    def close(self) -> None:
        """Close the channel; calls under way are cancelled. Idempotent.

        Not for a forked child: the channel is its parent's, who goes on.
        """
        with self._lock:
            self.closing.set()
            if self._channel is not None:
                self._channel.close()

    def send(self, call: Call[Any], attempts: Attempts) -> Any:
        """Send a call once; return its response."""
        try:
            return self._method(call, attempts)(call.request, timeout=attempts.left)
        except grpc.RpcError as failed:
            raise channel.error_of(failed, self._route, closed=self.closed) from failed
        except ValueError as error:  # the channel was closed by another thread just now
            raise AgentUnreachable("This connection was closed; call connect() again.") from error

    def check_home(self) -> None:
        """Raise `AgentUnreachable` in a forked child."""
        self._home.check()

    def _method(self, call: Call[Any], attempts: Attempts) -> Any:
        if not self._current():
            self._renew(attempts)
        with self._lock:
            self._check_open()
            assert self._channel is not None
            method = self._methods.get(call.path)
            if method is None:
                method = self._methods[call.path] = self._channel.unary_unary(
                    call.path,
                    request_serializer=type(call.request).SerializeToString,
                    response_deserializer=call.response.FromString,
                )
            return method

    def _current(self) -> bool:
        return self._channel is not None and self._route.holds()

    def _renew(self, attempts: Attempts) -> None:
        self._check_open()
        # Whoever looks may wait for the agent; the others wait no longer than their own deadline.
        if not self._looking.acquire(timeout=attempts.left):
            raise attempts.too_late()
        try:
            if self._current():
                return  # another thread did
            self._route.look(attempts.left)
            with self._lock:
                self._check_open()
                # A new channel, since the old one may be waiting before it tries again. It is not
                # closed: calls of other threads may be under way, and end as they will.
                self._channel = self._route.channel(grpc)
                self._methods = {}
        finally:
            self._looking.release()

    def _check_open(self) -> None:
        if self.closed:
            raise AgentUnreachable("This connection was closed; call connect() for another.")


class Driver:
    """Runs flows over a connection. Thread-safe."""

    def __init__(self, connection: Connection, timing: Timing) -> None:
        self.connection = connection
        self._timing = timing

    def run(self, flow: Flow[R]) -> R:
        """Run a flow to its end."""
        self.connection.check_home()
        return self._finish(flow, None)

    def _finish(self, flow: Flow[R], step: Step | None) -> R:
        """Run a flow from `step`, or from its start."""
        try:
            if step is None:
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

    def _take(self, step: Step) -> Any:
        match step:
            case Wait(future):
                return future.result()
            case Beside(flow):
                return self._start(flow)
            case call:
                return call.result(self._call(call))

    def _call(self, call: Call[Any]) -> Any:
        attempts = Attempts(call, self._timing, time.monotonic)
        while True:
            try:
                return self.connection.send(call, attempts)
            except KeycustodyError as error:
                self.connection.closing.wait(attempts.pause(error))

    def _start(self, flow: Flow[None]) -> None:
        step = next(flow)
        thread = Thread(
            target=self._finish, args=(flow, step), daemon=True, name="keycustody-beside"
        )
        try:
            thread.start()
        except RuntimeError:  # no thread is to be had, as while the interpreter ends
            flow.close()
