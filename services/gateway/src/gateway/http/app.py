"""The ASGI application: paths to handlers, and one place where every failure becomes an answer."""

import secrets
from collections.abc import Awaitable, Callable, Mapping

from chassis.errors import ServiceError
from chassis.health import Health
from chassis.logging import get_logger
from gateway import metrics
from gateway.http.chat import Chat
from gateway.http.completion import error_event
from gateway.http.exchange import Exchange, Receive, Scope, Send
from gateway.http.lookups import Lookups
from gateway.refusals import RefusedError, as_refusal, envelope

log = get_logger("http")
_HEALTH = frozenset({"/livez", "/readyz", "/metrics", "/version"})
CHAT = "/v1/chat/completions"


def new_request_id() -> str:
    """Return an identifier that nobody can guess."""
    return f"req_{secrets.token_hex(12)}"


class App:
    """Answers HTTP."""

    def __init__(self, health: Health, chat: Chat, lookups: Lookups, areas: Mapping[str, Callable[[Exchange], Awaitable[None]]]) -> None:
        """Bind the handlers; `areas` answer whatever lies at or under a path."""
        self._health, self._chat, self._lookups, self._areas = health, chat, lookups, areas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send, new_request_id())
        try:
            await self._route(exchange)
        except ServiceError as error:
            await self._refuse(exchange, as_refusal(error))
        except Exception:
            log.exception("request_failed", request_id=exchange.request_id, path=exchange.path)
            await self._refuse(exchange, RefusedError("internal_error"))

    async def _route(self, exchange: Exchange) -> None:
        path, method = exchange.path, exchange.method
        if path == CHAT and method == "POST":
            return await self._chat(exchange)
        for prefix, area in self._areas.items():
            if path == prefix or path.startswith(f"{prefix}/"):
                return await area(exchange)
        if method not in ("GET", "HEAD"):
            raise RefusedError("not_found")
        if path in _HEALTH:
            status, content_type, body = self._health.respond(path)
            return await exchange.respond(status, body, content_type.encode())
        if path == "/v1/models":
            return await self._lookups.models(exchange)
        for prefix, handler in (
            ("/v1/models/", self._lookups.model),
            ("/v1/requests/", self._lookups.request),
            ("/v1/traces/", self._lookups.trace),
        ):
            if path.startswith(prefix) and len(path) > len(prefix):
                return await handler(exchange, path[len(prefix) :])
        raise RefusedError("not_found")

    async def _refuse(self, exchange: Exchange, error: RefusedError) -> None:
        if exchange.path == CHAT:
            metrics.REQUESTS.labels(ingress="http", outcome=error.code).inc()
        log.info("request_refused", request_id=exchange.request_id, path=exchange.path[:64], code=error.code, reason=str(error)[:300])
        if exchange.streaming:
            await exchange.events(error_event(envelope(error)), last=True)
        else:
            await exchange.refuse(error)
