"""What was begun has an outcome on record, also when the gateway that began it is gone."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.kv import KeyValue

from chassis.errors import UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus, canonical_json
from chassis.mirror import Mirror
from contracts.streams import ATTEMPTS
from gateway.audit_trail import AuditTrail

log = get_logger("attempts")
ATTEMPTED, VERIFIED, FAILED = "attempted", "verified", "failed"
_OUTCOMES = {VERIFIED: "succeeded", FAILED: "failed"}
_SWEEP_SECONDS = 1.0


@dataclass(frozen=True)
class Attempt:
    """Something that changes what the installation does: what, by whom, when it began (seconds since 1970), what its record says."""

    id: str
    step: str
    tenant: str
    user: str
    request_id: str
    at: float
    details: dict[str, Any]


# Finds out what became of an attempt: `verified` or `failed`.
Outcome = Callable[[Attempt], Awaitable[str]]


class Attempts:
    """Keeps what is begun on the bus until its outcome is on record; any gateway may find that out for one that is gone."""

    def __init__(self, bus: Bus, trail: AuditTrail, *, abandoned_seconds: float, refresh_seconds: float) -> None:
        """Bind the bus; `abandoned_seconds` is the age at which nobody works on an attempt any more."""
        self._bus, self._trail, self._abandoned = bus, trail, abandoned_seconds
        self._bucket: KeyValue | None = None
        self.mirror = Mirror(bus, ATTEMPTS, _decode, refresh_seconds=refresh_seconds)

    async def begin(self, attempt: Attempt) -> None:
        """Keep an attempt before anything is done; raise UnavailableError when the bus does not take it."""
        try:
            await (await self._stored()).create(attempt.id, canonical_json(asdict(attempt)))
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"what is attempted was not kept: {error!r}") from error

    async def record(self, attempt: Attempt, phase: str, code: str = "") -> None:
        """Put a phase of an attempt on record, the same record whoever does it; raise UnavailableError when the stream does not take it."""
        await self._trail.record(
            attempt.step,
            _OUTCOMES.get(phase, "unknown"),
            record_id=f"{attempt.id}/{attempt.step}/{'attempted' if phase == ATTEMPTED else 'outcome'}",
            tenant=attempt.tenant,
            request_id=attempt.request_id,
            trace_id="",
            details=attempt.details,
            code=code,
            user=attempt.user,
            phase=phase,
            at=attempt.at,
        )

    async def end(self, attempt: Attempt, phase: str, code: str = "") -> None:
        """Put the outcome on record and forget the attempt; what the bus does not take now is swept up later."""
        try:
            await self.record(attempt, phase, code)
            await (await self._stored()).purge(attempt.id)
        except (TimeoutError, NatsError, JetStreamError, UnavailableError) as error:
            log.warning("attempt_left", attempt=attempt.id, step=attempt.step, phase=phase, error=repr(error))

    async def sweep(self, outcome: Outcome) -> None:
        """Put on record, again and again until cancelled, what became of attempts that nobody works on any more."""
        while True:
            oldest = time.time() - self._abandoned
            for attempt in [one for one in self.mirror.entries.values() if one.at <= oldest]:
                with suppress(TimeoutError, NatsError, JetStreamError, UnavailableError):
                    phase = await outcome(attempt)
                    log.warning("attempt_swept", attempt=attempt.id, step=attempt.step, phase=phase)
                    await self.end(attempt, phase)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def _stored(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._bus.js.key_value(ATTEMPTS)
        return self._bucket


def _decode(_: str, value: bytes) -> Attempt:
    return Attempt(**json.loads(value))
