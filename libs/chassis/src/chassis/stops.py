"""The emergency stop: what an operator has stopped, known in every service within a fraction of a second."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from chassis.errors import FailedPreconditionError
from chassis.messaging import Bus
from chassis.mirror import Mirror
from chassis.process import Runtime
from chassis.tasks import end, in_time
from contracts.streams import STOPS
from contracts.subjects import TOKEN

EVERYTHING = "all"
Kind = Literal["tenant", "workflow", "tool", "adapter"]
KINDS: tuple[str, ...] = get_args(Kind)
_REFRESH_SECONDS = 30.0
_SYNC_SECONDS = 30.0
T = TypeVar("T")


class StoppedError(FailedPreconditionError):
    """An operator has stopped this; it is not tried again by itself."""

    default_code = "stopped"


@dataclass(frozen=True)
class Stop:
    """One stop: what it covers, why, who set it, and when (UTC, ISO 8601)."""

    scope: str
    reason: str
    set_by: str
    set_at: str


def check_scope(scope: str) -> str:
    """Return `scope` if it is `all` or `<kind>.<name>`; raise ValueError otherwise. Adapters are named with `-` for `@`."""
    kind, _, name = scope.partition(".")
    if scope == EVERYTHING or (kind in KINDS and TOKEN.fullmatch(name)):
        return scope
    raise ValueError(f"{scope!r} is no scope: {EVERYTHING}, or one of {', '.join(KINDS)} with a name after a dot")


def scope_of(kind: Kind, name: str) -> str:
    """Return the scope of one tenant, workflow, tool or adapter."""
    # A key of a bucket has neither `@` nor `.` within a token.
    return f"{kind}.{name.lower().replace('@', '-').replace('.', '-')}"


def decode(key: str, value: bytes) -> Stop:
    """Return a stop as it is stored; raise ValueError for anything else."""
    record = json.loads(value)
    return Stop(check_scope(key), str(record["reason"]), str(record["set_by"]), str(record["set_at"]))


class Stops:
    """What is stopped now."""

    def __init__(self, bus: Bus) -> None:
        """Bind the bus; nothing is known before `mirror.run`."""
        self.mirror = Mirror(bus, STOPS, decode, refresh_seconds=_REFRESH_SECONDS)

    def find(self, **names: str) -> Stop | None:
        """Return the stop that covers any of the names, by kind; empty names are covered by `all` alone."""
        entries = self.mirror.entries
        if not entries:
            return None
        scopes = (EVERYTHING, *(f"{kind}.{name.lower().replace('@', '-').replace('.', '-')}" for kind, name in names.items() if name))
        return next((entries[scope] for scope in scopes if scope in entries), None)

    def check(self, **names: str) -> None:
        """Raise StoppedError where `find` finds something."""
        if (stop := self.find(**names)) is not None:
            raise StoppedError(f"{stop.scope} is stopped")

    async def guarded(self, work: Awaitable[T], **names: str) -> T:
        """Return what `work` returns; cancel it and raise StoppedError as soon as a stop covers one of the names."""
        task = asyncio.ensure_future(work)

        def look() -> None:
            if self.find(**names) is not None:
                task.cancel()

        self.mirror.listeners.add(look)
        look()
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is None or not current.cancelling():
                self.check(**names)
            raise
        finally:
            self.mirror.listeners.discard(look)


@asynccontextmanager
async def following(runtime: Runtime) -> AsyncIterator[Stops]:
    """Follow the stops for as long as the block lasts; it begins when they are known, TimeoutError when they do not come."""
    stops = Stops(runtime.bus)
    task = asyncio.create_task(stops.mirror.run())
    runtime.health.checks["stops"] = stops.mirror.synced.is_set
    try:
        await in_time(_SYNC_SECONDS, stops.mirror.synced.wait())
        yield stops
    finally:
        await end(task)
