"""Forgets an erased person's runs, answers and dead requests, each when its run is over."""

import time

from google.protobuf.message import DecodeError
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from chassis.erasing import StillOpenError
from chassis.errors import InvalidArgumentError, UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus, decode
from contracts.streams import REVIEWS, RUNS
from contracts.subjects import ADMITTED, DECISION, REQUEST, RESPONSE, dead
from orchestrator.answer_cache import AnswerCache
from orchestrator.records import RunStore
from orchestrator.runs import RUNNING
from strata.audit.v1.audit_events_pb2 import ErasedRequest, ErasureOrdered
from strata.gateway.v1.gateway_events_pb2 import RequestAdmitted
from strata.orchestrator.v1.orchestrator_events_pb2 import ResponseReleased, RunRecord

log = get_logger("erasing")
_DEAD = "DEAD"
# A run that has not written its end so long after its deadline has no owner any more.
_GRACE_SECONDS = 60.0


class Forgetting:
    """Carries out orders of audit."""

    def __init__(self, bus: Bus, store: RunStore, cache: AnswerCache) -> None:
        """Bind what holds something of a person."""
        self._bus, self._store, self._cache = bus, store, cache

    async def forget(self, order: ErasureOrdered) -> None:
        """Forget what is over; raise StillOpenError while a run is not, or its review is still there."""
        waiting = [request.request_id for request in order.requests if not await self._run(order.tenant, request)]
        requests = frozenset(request.request_id for request in order.requests)
        await self._cache.forget(order.tenant, requests)
        await self._dead(order.tenant, requests)
        if waiting:
            raise StillOpenError(f"{len(waiting)} requests are not over, such as {waiting[0]!r}")

    async def _run(self, tenant: str, request: ErasedRequest) -> bool:
        """Forget one request and return whether nothing of it can come any more."""
        name = request.request_id
        try:
            found = await self._store.load(f"{tenant}.{name}")
            is_marked = found is None and await self._store.is_purged(f"{tenant}.{name}")
            if not is_marked and await self._is_open(tenant, request, found and found[0]):
                return False
            await self._purge_answers(tenant, name)
            if found is not None or (request.HasField("open_until") and not is_marked):
                # The mark that the purge leaves says that the run is over, so it comes last.
                await (await self._bus.js.key_value(RUNS)).purge(f"{tenant}.{name}")
            # A review's decision would still be told; when it is gone, this is done once more.
            return not await self._is_reviewed(tenant, name)
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the run {name!r} cannot be erased: {error!r}") from error

    async def _is_open(self, tenant: str, request: ErasedRequest, record: RunRecord | None) -> bool:
        if record is not None:
            return record.status == RUNNING and record.deadline.ToMilliseconds() / 1000 + _GRACE_SECONDS > time.time()
        # What is admitted and not begun has no record yet, and no answer.
        may_begin = request.open_until.ToMilliseconds() / 1000 > time.time()
        return may_begin and not await self._is_told(tenant, request.request_id)

    async def _is_told(self, tenant: str, request_id: str) -> bool:
        try:
            found = await self._bus.js.get_msg(RESPONSE.stream, subject=RESPONSE.at(tenant=tenant, request_id=request_id), direct=True)
            last: ResponseReleased = decode(RESPONSE, found.data or b"")
        except (NotFoundError, InvalidArgumentError):
            return False
        return bool(last.error_code) or last.HasField("completion")

    async def _is_reviewed(self, tenant: str, request_id: str) -> bool:
        """Return whether there is a review, whose decision would be told."""
        try:
            found = await self._bus.js.get_msg(f"KV_{REVIEWS}", subject=f"$KV.{REVIEWS}.{tenant}.{request_id}", direct=True)
        except NotFoundError:
            return False
        return bool(found.data)

    async def _purge_answers(self, tenant: str, request_id: str) -> None:
        for subject in (RESPONSE, DECISION):
            await self._bus.js.purge_stream(subject.stream, subject=subject.at(tenant=tenant, request_id=request_id))

    async def _dead(self, tenant: str, requests: frozenset[str]) -> None:
        """Delete the dead letters of these requests, which hold them as they came."""
        sequence, wanted = 1, {(tenant, name) for name in requests}
        try:
            while True:
                try:
                    found = await self._bus.js.get_msg(_DEAD, seq=sequence, subject=dead(ADMITTED.stream), next=True)
                except NotFoundError:
                    return
                sequence = (found.seq or sequence) + 1
                if _asked((found.headers or {}).get("strata-subject", ""), found.data or b"") in wanted:
                    await self._bus.js.delete_msg(_DEAD, found.seq or 0)
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the dead letters cannot be erased: {error!r}") from error


def _asked(subject: str, data: bytes) -> tuple[str, str]:
    """Return tenant and request of a dead letter, as far as it can be read."""
    tenant = subject.rpartition(".")[2]
    try:
        if subject.startswith(REQUEST.pattern.partition("*")[0]):
            return tenant, str(decode(REQUEST, data).request_id)
        return tenant, RequestAdmitted.FromString(data).request_id
    except (InvalidArgumentError, DecodeError):
        return tenant, ""
