"""What the gateway writes into the audit log."""

import asyncio
import json
import time
from collections.abc import Coroutine
from typing import Any

from chassis.errors import UnavailableError
from chassis.logging import get_logger
from contracts.subjects import AUDIT, audit_step
from gateway.publishing import Publisher, event_headers, rfc3339

log = get_logger("audit_trail")
_TRIES = 2
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_PAUSE_SECONDS = 0.1


class AuditTrail:
    """Publishes step records; who needs one on record awaits it."""

    def __init__(self, publisher: Publisher) -> None:
        """Bind what publishes."""
        self._publisher = publisher
        self._tasks: set[asyncio.Task[None]] = set()

    async def record(
        self,
        step: str,
        outcome: str,
        *,
        record_id: str,
        tenant: str,
        request_id: str,
        trace_id: str,
        details: dict[str, Any],
        code: str = "",
        started: float | None = None,
        user: str = "",
        session_id: str = "",
        phase: str = "",
        at: float | None = None,
    ) -> None:
        """Return when the stream holds the record; raise UnavailableError when it cannot.

        `started` is a `time.perf_counter`; `at`, in seconds since 1970, is when it began where several may make the same record.
        """
        seconds = 0.0 if started is None else time.perf_counter() - started
        producer = self._publisher.producer
        number = producer.number(record_id)
        # StepRecorded in protobuf's JSON mapping, by hand: the library takes ten times as long.
        message = {
            "record_id": record_id,
            "tenant": tenant,
            "request_id": request_id,
            "trace_id": trace_id,
            "service": "gateway",
            "step": step,
            "attempt": 1,
            "outcome": outcome,
            "code": code,
            "started_at": rfc3339(time.time() - seconds if at is None else at),
            "duration_ms": round(seconds * 1000, 3),
            "details": details,
            "producer": producer.name,
            "producer_sequence": str(number),
            "user": user,
            "session_id": session_id,
            "phase": phase,
        }
        body = _ENCODER.encode(message).encode()
        subject = AUDIT.at(tenant=tenant, step=audit_step(step, "gateway"))
        headers = event_headers(AUDIT, event_id=record_id, about=request_id)
        for attempt in range(1, _TRIES + 1):
            try:
                duplicate = await (await self._publisher.send(AUDIT, subject, body, headers)).stored()
            except UnavailableError:
                if attempt == _TRIES:
                    producer.failed(record_id, number)
                    raise
                await asyncio.sleep(_PAUSE_SECONDS * attempt)
            else:
                # The stream may know a second attempt from the first, under the same number.
                producer.stored(number, duplicate=duplicate and attempt == 1)
                return

    def later(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do it in the background; `drain` waits for it, and so may who asked."""
        task = asyncio.create_task(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except UnavailableError as error:
            log.error("audit_record_lost", error=str(error))  # noqa: TRY400 - the cause is in the text

    async def drain(self, seconds: float) -> None:
        """Wait for what is in the background."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
