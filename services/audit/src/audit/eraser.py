"""Erases a person: orders to whoever else keeps something, then the keys, with attempt and outcome on record."""

import asyncio
from collections.abc import Mapping

from audit import governing
from audit.access import AccessLog
from audit.disclosing import entries
from audit.erasing import Orders, Traces, carried_out, traces
from audit.governing import Erased
from audit.ledger import Ledger
from audit.subscribers import Writer
from audit.terms import user_subject
from audit.view import Found
from chassis.errors import InvalidArgumentError, NotFoundError, ServiceError, UnavailableError
from chassis.messaging import Bus
from strata.audit.v1 import audit_service_pb2 as pb
from strata.gateway.v1.gateway_events_pb2 import Caller

STEP = "erasure"
_LOOK_SECONDS = 0.05
_MOST_LOOKS = 100
# The usual erasure is over everywhere by then; what is not is asked for by the erasure's name.
_LOOKS_ELSEWHERE = 20
# A user who goes on asking meanwhile is found again; so often in a row is more than anybody asks.
_MOST_ROUNDS = 20


class Eraser:
    """Works on one erasure or hold at a time, so that neither comes into the middle of the other."""

    def __init__(self, bus: Bus, writer: Writer, access: AccessLog, *, open_seconds: float) -> None:
        """Bind the log; a request without an end on record may run for `open_seconds`."""
        self._bus, self._writer, self._access, self._open = bus, writer, access, open_seconds
        self.alone = asyncio.Lock()

    async def erase(self, request: pb.EraseSubjectRequest) -> pb.EraseSubjectResponse:
        """Erase a user; the attempt is on record before, and what came of it after."""
        governing.check(request.caller, request.tenant, request.reason)
        if not request.subject or not request.tenant:
            raise InvalidArgumentError("give the tenant and the user to erase")
        async with self.alone:
            ledger = self._writer.ledger()
            about = await asyncio.to_thread(governing.described, ledger, request.tenant, request.subject, request.reason)
            attempt = await self._access.record(request.caller, STEP, tenant=request.tenant, phase="attempted", **about)
            orders = Orders(self._bus, attempt, request.tenant, request.subject)
            try:
                await self._until_logged(attempt)
                done = await self._erased(ledger, request, orders)
            except (ServiceError, OSError) as error:
                code = error.code if isinstance(error, ServiceError) else "internal_error"
                await self._access.record(
                    request.caller, STEP, tenant=request.tenant, outcome="failed", phase="failed", code=code, ordered=orders.sent, **about
                )
                raise
            await self._access.record(
                request.caller,
                STEP,
                record_id=_outcome_id(attempt),
                tenant=request.tenant,
                phase="verified",
                keys=done.keys,
                ordered=orders.sent,
                **about,
            )
        holders = await self._settled(request.tenant, attempt, orders.sent)
        return pb.EraseSubjectResponse(keys=done.keys, requests=done.requests, erasure_id=attempt, holders=holders)

    async def _erased(self, ledger: Ledger, request: pb.EraseSubjectRequest, orders: Orders) -> Erased:
        await asyncio.to_thread(ledger.vault.refuse_held, request.tenant, user_subject(request.subject))
        # Most is read before the writer has to wait for the rest.
        known = await asyncio.to_thread(traces, ledger, request.tenant, request.subject, Traces(), open_seconds=self._open)
        await orders.send(known)
        for _ in range(_MOST_ROUNDS):
            done = await asyncio.to_thread(governing.erase, ledger, request.tenant, request.subject, known, open_seconds=self._open)
            if isinstance(done, Erased):
                return done
            # Once its keys are gone, nothing says any more which requests were whose: the orders must be on the bus before.
            await orders.send(done.beyond(known))
            known = known.with_(done)
        raise UnavailableError("the user asks for more than can be erased at once; try again")

    async def _until_logged(self, record_id: str) -> None:
        """Wait for a record, because what waits before it in the stream would be sealed under keys that an erasure does not know."""
        for _ in range(_MOST_LOOKS):
            if await asyncio.to_thread(governing.is_logged, self._writer.ledger(), record_id):
                return
            await asyncio.sleep(_LOOK_SECONDS)
        raise UnavailableError("the log has not taken what was published before; try again")

    async def _settled(self, tenant: str, erasure_id: str, ordered: Mapping[str, int]) -> list[pb.HolderState]:
        """Return how far the holders are, after a moment in which most are done."""
        for _ in range(_LOOKS_ELSEWHERE):
            found = await asyncio.to_thread(_states, self._writer.ledger(), tenant, erasure_id, ordered)
            if all(state.done == state.ordered for state in found):
                break
            await asyncio.sleep(_LOOK_SECONDS)
        return found

    async def state(self, request: pb.GetErasureRequest) -> pb.GetErasureResponse:
        """Return how far an erasure is elsewhere; raise NotFoundError where there is none."""
        return await asyncio.to_thread(_state, self._writer.ledger(), request.caller, request.erasure_id)


def _outcome_id(erasure_id: str) -> str:
    return f"{erasure_id}/keys"


def _state(ledger: Ledger, caller: Caller, erasure_id: str) -> pb.GetErasureResponse:
    rows = ledger.view.rows(
        "SELECT position, segment, offset FROM records WHERE record_id = ? AND step = ?", (_outcome_id(erasure_id), STEP)
    )
    records = [entry.record for entry in entries(ledger, [Found(*row) for row in rows]) if entry.record]
    if not records:
        raise NotFoundError(f"no erasure {erasure_id!r} is on record as done, or who did it is erased too")
    tenant = str(records[0]["tenant"])
    governing.check(caller, tenant, None)
    ordered = (records[0].get("details") or {}).get("ordered") or {}
    counts = {str(holder): int(count) for holder, count in ordered.items()}
    return pb.GetErasureResponse(tenant=tenant, holders=_states(ledger, tenant, erasure_id, counts))


def _states(ledger: Ledger, tenant: str, erasure_id: str, ordered: Mapping[str, int]) -> list[pb.HolderState]:
    return [
        pb.HolderState(holder=holder, ordered=count, done=min(count, carried_out(ledger, tenant, erasure_id, holder)))
        for holder, count in sorted(ordered.items())
    ]
