"""/v1/stops: the emergency stop, set by one person and lifted by another."""

import asyncio
import json
import secrets
import time
from datetime import UTC, datetime
from typing import Any

from nats.errors import Error as NatsError
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError
from nats.js.kv import KeyValue
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chassis.errors import UnavailableError
from chassis.messaging import canonical_json
from chassis.stops import Stop, check_scope, decode, scope_of
from chassis.tasks import in_time
from contracts.streams import STOPS
from gateway.attempts import ATTEMPTED, FAILED, VERIFIED, Attempt, Attempts
from gateway.http.chat import Parts
from gateway.http.exchange import Exchange
from gateway.refusals import RefusedError
from strata.gateway.v1.gateway_events_pb2 import Caller

STOPS_PATH = "/v1/stops"
# Everything of one's own tenant; with the second, whatever others use too.
WRITE, WRITE_ALL, LIFT = "stop:write", "stop:all", "stop:lift"
_MAX_BODY = 8 * 1024
# A stop waits no longer than this for the record that it is attempted.
_PATIENCE_SECONDS = 0.3
_HISTORY_SECONDS = 10.0


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    scope: str
    reason: str = Field(min_length=3, max_length=500)


class StopDesk:
    """Answers whatever begins with /v1/stops."""

    def __init__(self, parts: Parts, attempts: Attempts) -> None:
        """Bind the parts, and what remembers what was begun."""
        self._parts, self._attempts = parts, attempts
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
        stop = Stop(scope, order.reason, _setter(caller), datetime.now(UTC).isoformat(timespec="milliseconds"))
        attempt = _attempt(exchange, caller, "stop_set", {"scope": scope, "reason": stop.reason, "by": stop.set_by})
        value = canonical_json({"reason": stop.reason, "set_by": stop.set_by, "set_at": stop.set_at, "attempt": attempt.id})
        await self._attempts.begin(attempt)
        # A log that cannot be written must not keep anybody from stopping: what was begun is kept, and is on record when it can be.
        await asyncio.wait([self._parts.trail.later(self._attempts.record(attempt, ATTEMPTED))], timeout=_PATIENCE_SECONDS)
        try:
            await (await self._stored()).create(scope, value)
        except KeyWrongLastSequenceError as error:
            await self._attempts.end(attempt, FAILED, "already_stopped")
            raise RefusedError("already_stopped", param="scope") from error
        except (TimeoutError, NatsError, APIError) as error:
            # Whether it was taken is found out by the sweep.
            raise UnavailableError(f"the stop was not taken: {error!r}") from error
        await self._attempts.end(attempt, VERIFIED)
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
        stop, person = decode(scope, entry.value or b""), _person(caller)
        if stop.set_by == person:
            raise RefusedError("second_person_required")
        details = {"scope": scope, "set_by": stop.set_by, "set_at": stop.set_at, "reason": stop.reason, "by": person}
        attempt = _attempt(exchange, caller, "stop_lifted", details)
        await self._attempts.begin(attempt)
        await self._attempts.record(attempt, ATTEMPTED)
        marked = canonical_json({**json.loads(entry.value or b""), "lifting": attempt.id})
        try:
            # The history shows whose deletion it was.
            revision = await bucket.update(scope, marked, last=entry.revision)
            await bucket.delete(scope, last=revision)
        except (TimeoutError, NatsError, APIError) as error:
            # Whether it was lifted is found out by the sweep.
            raise UnavailableError(f"the stop was not lifted: {error!r}") from error
        await self._attempts.end(attempt, VERIFIED)
        await exchange.respond_json({**_shown(stop), "object": "stop.lifted", "lifted_by": person})

    async def outcome(self, attempt: Attempt) -> str:
        """Return what the history of its scope tells of an attempt whose gateway is gone: `verified` or `failed`."""
        try:
            history = await in_time(_HISTORY_SECONDS, (await self._stored()).history(attempt.details["scope"]))
        except NoKeysError:
            return FAILED
        values = [json.loads(entry.value or b"{}") for entry in history]
        if attempt.step == "stop_set":
            return VERIFIED if any(value.get("attempt") == attempt.id for value in values) else FAILED
        lifted = any(
            value.get("lifting") == attempt.id and after.operation is not None for value, after in zip(values, history[1:], strict=False)
        )
        return VERIFIED if lifted else FAILED

    async def _stored(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._parts.bus.js.key_value(STOPS)
        return self._bucket


def _own(caller: Caller) -> str:
    return scope_of("tenant", caller.tenant)


def _setter(caller: Caller) -> str:
    """Return who this is; a key that names nobody may stop too, for stopping is the safe side."""
    return f"{caller.tenant}/{caller.user or caller.key_id}"


def _person(caller: Caller) -> str:
    """Return who this is; raise RefusedError for a credential that names nobody, for two of these may be one person's."""
    if not caller.user:
        raise RefusedError("permission_denied", "A stop is lifted by a person, and this key names nobody.")
    return f"{caller.tenant}/{caller.user}"


def _attempt(exchange: Exchange, caller: Caller, step: str, details: dict[str, str]) -> Attempt:
    return Attempt(secrets.token_hex(12), step, caller.tenant, caller.user, exchange.request_id, time.time(), details)


def _require(caller: Caller, permission: str, scope: str) -> None:
    if permission not in caller.permissions or (scope != _own(caller) and WRITE_ALL not in caller.permissions):
        raise RefusedError("permission_denied", f"{permission} covers {_own(caller)}; other scopes need {WRITE_ALL} too.")


def _shown(stop: Stop) -> dict[str, Any]:
    return {"object": "stop", "scope": stop.scope, "reason": stop.reason, "set_by": stop.set_by, "set_at": stop.set_at}
