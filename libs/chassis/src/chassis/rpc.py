"""gRPC with mutual TLS, a deadline on every call, one mapping of errors and the trace carried along."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode, aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry.trace import SpanKind

from chassis import telemetry
from chassis.errors import BY_STATUS, InternalError, InvalidArgumentError, ServiceError
from chassis.identity import Credentials, dns_name
from chassis.logging import get_logger
from chassis.settings import ServiceSettings
from contracts.identities import BY_NAME

log = get_logger("rpc")
CODE_KEY = "strata-code"
_MAX_MESSAGE = 8 * 1024 * 1024
_OPTIONS = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
]


Context = aio.ServicerContext[Any, Any]


def to_time(value: Timestamp, field: str) -> dt.datetime:
    """Return a time of a request, in UTC; raise InvalidArgumentError for one outside protobuf's range, which is the calendar's."""
    try:
        return value.ToDatetime(tzinfo=dt.UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"field {field!r} must be a time between the years 1 and 9999") from error


def _callers(context: Context) -> set[str]:
    names = context.auth_context().get("x509_subject_alternative_name", ())
    return {name.decode() for name in names}


@asynccontextmanager
async def _boundary(context: Context, method: str, allowed: frozenset[str]) -> AsyncIterator[None]:
    """Check who calls, hold the caller's deadline, and answer in status codes whatever happens."""
    started, status = time.perf_counter(), "OK"
    metadata = {str(k): str(v) for k, v in context.invocation_metadata() or ()}
    try:
        with telemetry.span(method, kind=SpanKind.SERVER, parent=telemetry.extract(metadata)):
            if not allowed & _callers(context):
                await context.abort(StatusCode.PERMISSION_DENIED, "this certificate may not call this service")
            budget = context.time_remaining()
            if budget is None:
                await context.abort(StatusCode.INVALID_ARGUMENT, "a deadline is required")
            async with asyncio.timeout(budget):
                yield
    except aio.AbortError:
        status = "ABORTED"
        raise
    except ServiceError as error:
        status = error.status.name
        log.info("rpc_refused", method=method, code=error.code, status=status, message=str(error))
        await context.abort(error.status, str(error), ((CODE_KEY, error.code),))
    except TimeoutError:
        status = "DEADLINE_EXCEEDED"
        await context.abort(StatusCode.DEADLINE_EXCEEDED, "deadline exceeded", ((CODE_KEY, "deadline_exceeded"),))
    except Exception:
        status = "INTERNAL"
        log.exception("rpc_failed", method=method)
        await context.abort(StatusCode.INTERNAL, "internal error", ((CODE_KEY, "internal_error"),))
    finally:
        telemetry.RPC_SECONDS.labels(method=method, status=status).observe(time.perf_counter() - started)


class _BoundaryInterceptor(aio.ServerInterceptor):
    """Wrap every method in the boundary; none streams both ways."""

    def __init__(self, callers: tuple[str, ...]) -> None:
        self._allowed = frozenset(dns_name(caller) for caller in callers)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: Any = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith("/grpc.health.v1.Health/"):
            return cast("grpc.RpcMethodHandler[Any, Any] | None", handler)
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(handler.unary_unary, method), handler.request_deserializer, handler.response_serializer
            )
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(
                self._unary(handler.stream_unary, method), handler.request_deserializer, handler.response_serializer
            )
        return grpc.unary_stream_rpc_method_handler(
            self._stream(handler.unary_stream, method), handler.request_deserializer, handler.response_serializer
        )

    def _unary(self, inner: Any, method: str) -> Any:
        async def call(request: Any, context: Context) -> Any:
            async with _boundary(context, method, self._allowed):
                return await inner(request, context)

        return call

    def _stream(self, inner: Any, method: str) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            async with _boundary(context, method, self._allowed):
                async for response in inner(request, context):
                    yield response

        return call


@asynccontextmanager
async def rpc_server(
    settings: ServiceSettings, service: str, register: Callable[[aio.Server], None], *, max_concurrent: int = 256
) -> AsyncIterator[aio.Server]:
    """Serve what `register` adds until the block ends, then refuse new calls and finish those in flight."""
    server = aio.server(
        interceptors=[_BoundaryInterceptor(BY_NAME[service].callers)],
        options=_OPTIONS,
        maximum_concurrent_rpcs=max_concurrent,
    )
    register(server)
    checker = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    address = f"{settings.bind_host}:{settings.grpc_port(service)}"
    server.add_secure_port(address, Credentials(service, settings.state_dir).server())
    await server.start()
    await checker.set("", health_pb2.HealthCheckResponse.SERVING)
    try:
        yield server
    finally:
        await checker.enter_graceful_shutdown()
        await server.stop(settings.drain_seconds)


def channel(settings: ServiceSettings, me: str, service: str) -> aio.Channel:
    """Open a channel to `service` that proves who we are and refuses anyone else's certificate."""
    return aio.secure_channel(
        settings.grpc_target(service),
        Credentials(me, settings.state_dir).channel(),
        options=[
            *_OPTIONS,
            ("grpc.ssl_target_name_override", dns_name(service)),
            # Retries happen at one layer, that of the workflow's step.
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ],
    )


def outgoing_metadata() -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries the trace to the callee."""
    headers: dict[str, str] = {}
    telemetry.inject(headers)
    return tuple(headers.items())


def to_service_error(error: aio.AioRpcError) -> ServiceError:
    """Return the error that the callee raised, as this side's class with the same code."""
    cls = BY_STATUS.get(error.code(), InternalError)
    trailing = {str(k): str(v) for k, v in error.trailing_metadata() or ()}
    return cls(error.details() or error.code().name, code=trailing.get(CODE_KEY))


async def call(method: Any, request: Any, *, timeout: float) -> Any:  # noqa: ASYNC109 - mirrors grpc's stubs
    """Call a unary method with a deadline in seconds; raise ServiceError for whatever goes wrong."""
    try:
        return await method(request, timeout=max(timeout, 0.001), metadata=outgoing_metadata())
    except aio.AioRpcError as error:
        raise to_service_error(error) from error


async def stream(method: Any, request: Any, *, timeout: float) -> AsyncIterator[Any]:  # noqa: ASYNC109
    """Yield the responses of a server-streaming method; raise ServiceError for whatever goes wrong."""
    pending = method(request, timeout=max(timeout, 0.001), metadata=outgoing_metadata())
    try:
        async for response in pending:
            yield response
    except aio.AioRpcError as error:
        raise to_service_error(error) from error
    finally:
        pending.cancel()


async def send(method: Any, requests: AsyncIterable[Any], *, timeout: float) -> Any:  # noqa: ASYNC109
    """Call a client-streaming method; the callee may answer early. Raise ServiceError, or what `requests` raises."""
    pending = method(timeout=max(timeout, 0.001), metadata=outgoing_metadata())
    try:
        async for request in requests:
            await pending.write(request)
        await pending.done_writing()
        return await pending
    except aio.AioRpcError as error:
        raise to_service_error(error) from error
    except asyncio.InvalidStateError:
        # The callee has ended the call; what it said is the answer.
        try:
            return await pending
        except aio.AioRpcError as error:
            raise to_service_error(error) from error
    finally:
        pending.cancel()
