"""Forgets an erased person's reviews and the examples that were made of them."""

import time

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from chassis.erasing import StillOpenError
from chassis.errors import InvalidArgumentError, UnavailableError
from chassis.messaging import Bus, decode
from contracts.streams import RUNS
from contracts.subjects import FEEDBACK
from review.store import Store, key_of
from strata.audit.v1.audit_events_pb2 import ErasedRequest, ErasureOrdered
from strata.review.v1.review_events_pb2 import ExampleCollected


class Forgetting:
    """Carries out orders of audit."""

    def __init__(self, bus: Bus, store: Store) -> None:
        """Bind where reviews and examples are."""
        self._bus, self._store = bus, store

    async def forget(self, order: ErasureOrdered) -> None:
        """Forget reviews and examples; raise StillOpenError while the run of a request may still be escalated."""
        waiting = [request.request_id for request in order.requests if not await self._review(order.tenant, request)]
        await self._examples(order.tenant, {request.request_id for request in order.requests})
        if waiting:
            raise StillOpenError(f"{len(waiting)} requests are not over, such as {waiting[0]!r}")

    async def _review(self, tenant: str, request: ErasedRequest) -> bool:
        """Forget one review, and return whether none can be made any more."""
        name = request.request_id
        try:
            if await self._has_run(tenant, request):
                return False
            await self._store.purge(key_of(tenant, name))
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the review of {name!r} cannot be erased: {error!r}") from error
        return True

    async def _has_run(self, tenant: str, request: ErasedRequest) -> bool:
        """Return whether the run is there, of which a review would be made, or will be; the orchestrator removes it when it is over."""
        try:
            found = await self._bus.js.get_msg(f"KV_{RUNS}", subject=f"$KV.{RUNS}.{tenant}.{request.request_id}", direct=True)
        except NotFoundError:
            return request.open_until.ToMilliseconds() / 1000 > time.time()
        return bool(found.data)

    async def _examples(self, tenant: str, requests: set[str]) -> None:
        sequence = 1
        try:
            while True:
                try:
                    found = await self._bus.js.get_msg(
                        FEEDBACK.stream, seq=sequence, subject=FEEDBACK.at(tenant=tenant), direct=True, next=True
                    )
                except NotFoundError:
                    return
                sequence = (found.seq or sequence) + 1
                try:
                    example: ExampleCollected = decode(FEEDBACK, found.data or b"")
                except InvalidArgumentError:
                    continue
                if example.request_id in requests:
                    await self._bus.js.delete_msg(FEEDBACK.stream, found.seq or 0)
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the examples cannot be erased: {error!r}") from error
