"""/v1/stops: the emergency stop, set by one person and lifted by another."""

from datetime import UTC, datetime
from typing import Any

from nats.errors import Error as NatsError
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chassis.errors import UnavailableError
from chassis.messaging import canonical_json
from chassis.stops import Stop, check_scope, decode, scope_of
from contracts.streams import STOPS
from gateway.http.chat import Parts
from gateway.http.exchange import Exchange
from gateway.refusals import RefusedError
from strata.gateway.v1.gateway_events_pb2 import Caller

STOPS_PATH = "/v1/stops"
# Everything of one's own tenant; with the second, whatever others use too.
WRITE, WRITE_ALL, LIFT = "stop:write", "stop:all", "stop:lift"
_MAX_BODY = 8 * 1024


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    scope: str
    reason: str = Field(min_length=3, max_length=500)


class StopDesk:
    """Answers whatever begins with /v1/stops."""

    def __init__(self, parts: Parts) -> None:
        """Bind the parts."""
        self._parts = parts
        self._bucket: KeyValue | None = None

    async def __call__(self, exchange: Exchange) -> None:
        """List, set or lift; raise RefusedError for anything else."""
        caller = self._parts.authenticator.authenticate(exchange.header(b"authorization"))
        if not {WRITE, LIFT} & set(caller.permissions):
            raise RefusedError("permission_denied")
        scope = exchange.path.removeprefix(STOPS_PATH).removeprefix("/")
        if exchange.method == "GET" and not scope:
            return await self._list(exchange, caller)
        if exchange.method == "POST" and not scope:
            return await self._set(exchange, caller)
        if exchange.method == "DELETE" and scope:
            return await self._lift(exchange, caller, scope)
        raise RefusedError("not_found")

    async def _list(self, exchange: Exchange, caller: Caller) -> None:
        own = {"all", _own(caller)}
        stops = [stop for scope, stop in self._parts.stops.mirror.entries.items() if scope in own or WRITE_ALL in caller.permissions]
        await exchange.respond_json({"object": "list", "data": [_shown(stop) for stop in sorted(stops, key=lambda stop: stop.scope)]})

    async def _set(self, exchange: Exchange, caller: Caller) -> None:
        raw = await exchange.body(_MAX_BODY, self._parts.settings.body_seconds)
        try:
            order = _Order.model_validate_json(raw)
            scope = check_scope(order.scope)
        except ValidationError as error:
            first = error.errors()[0]
            raise RefusedError("invalid_request", str(first["msg"]), param=".".join(map(str, first["loc"])) or None) from error
        except ValueError as error:
            raise RefusedError("invalid_request", str(error), param="scope") from error
        _require(caller, WRITE, scope)
        stop = Stop(scope, order.reason, _person(caller), datetime.now(UTC).isoformat(timespec="milliseconds"))
        value = canonical_json({"reason": stop.reason, "set_by": stop.set_by, "set_at": stop.set_at})
        try:
            await (await self._stored()).create(scope, value)
        except KeyWrongLastSequenceError as error:
            raise RefusedError("already_stopped", param="scope") from error
        except (TimeoutError, NatsError, APIError) as error:
            raise UnavailableError(f"the stop was not taken: {error!r}") from error
        # The effect comes first: a log that cannot be written must not keep anybody from stopping.
        self._parts.trail.later(self._record(exchange, caller, "stop_set", stop.scope, {"reason": stop.reason}))
        await exchange.respond_json(_shown(stop), status=201)

    async def _lift(self, exchange: Exchange, caller: Caller, scope: str) -> None:
        try:
            check_scope(scope)
            bucket = await self._stored()
            entry = await bucket.get(scope)
        except (ValueError, KeyNotFoundError) as error:
            raise RefusedError("not_found") from error
        except (TimeoutError, NatsError, APIError) as error:
            raise UnavailableError(f"the stops cannot be read: {error!r}") from error
        _require(caller, LIFT, scope)
        stop = decode(scope, entry.value or b"")
        if stop.set_by == _person(caller):
            raise RefusedError("second_person_required")
        await self._record(exchange, caller, "stop_lifted", scope, {"set_by": stop.set_by, "set_at": stop.set_at, "reason": stop.reason})
        try:
            await bucket.delete(scope, last=entry.revision)
        except (TimeoutError, NatsError, APIError) as error:
            raise UnavailableError(f"the stop was not lifted: {error!r}") from error
        await exchange.respond_json({**_shown(stop), "object": "stop.lifted", "lifted_by": _person(caller)})

    async def _stored(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._parts.bus.js.key_value(STOPS)
        return self._bucket

    async def _record(self, exchange: Exchange, caller: Caller, step: str, scope: str, details: dict[str, Any]) -> None:
        await self._parts.trail.record(
            step,
            "succeeded",
            record_id=f"{exchange.request_id}/{step}",
            tenant=caller.tenant,
            request_id=exchange.request_id,
            trace_id="",
            details={"scope": scope, "by": _person(caller), **details},
        )


def _own(caller: Caller) -> str:
    return scope_of("tenant", caller.tenant)


def _person(caller: Caller) -> str:
    """Return who this is: the person where the credential names one, else the credential."""
    return f"{caller.tenant}/{caller.user or caller.key_id}"


def _require(caller: Caller, permission: str, scope: str) -> None:
    if permission not in caller.permissions or (scope != _own(caller) and WRITE_ALL not in caller.permissions):
        raise RefusedError("permission_denied", f"{permission} covers {_own(caller)}; other scopes need {WRITE_ALL} too.")


def _shown(stop: Stop) -> dict[str, Any]:
    return {"object": "stop", "scope": stop.scope, "reason": stop.reason, "set_by": stop.set_by, "set_at": stop.set_at}
