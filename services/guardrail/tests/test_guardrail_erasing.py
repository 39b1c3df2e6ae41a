"""Nothing of an erased person's sessions stays with guardrail, and everything of everybody else does."""

import asyncio
import time

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from chassis.erasing import erasing, record_id
from contracts.streams import GUARDRAIL_ERASURES
from contracts.subjects import AUDIT, ERASURE
from guardrail.erasing import Forgetting
from guardrail.personal.sessions import Owner, Session, Sessions
from strata.audit.v1.audit_events_pb2 import ErasureOrdered
from testkit.nats import NatsServer

from .test_guardrail_sessions import connected


async def test_the_sessions_of_one_person_go_and_those_of_another_stay(bus: NatsServer, admin: Client) -> None:
    """What was ordered while guardrail was away is done when it is back, and once more until no request can add to a session."""
    order = ErasureOrdered(erasure_id="erasure/e1", tenant="clinic", holder="guardrail", part=1, user="ada", session_ids=["s1", "s0"])
    order.open_until.FromMilliseconds(int((time.time() + 1.0) * 1000))
    ada, bob = Owner("clinic", "ada", "s1"), Owner("clinic", "bob", "s1")
    async with connected() as connection:
        sessions = Sessions(connection, b"k" * 32, purpose="test", retention_seconds=600)
        for owner in (ada, bob):
            await sessions.change(
                owner, lambda session: (Session({"<PERSON_1>": "Angela"}, personal=True, revision=session.revision), None)
            )
        await admin.jetstream().publish(ERASURE.at(tenant="clinic", holder="guardrail"), order.SerializeToString())
        async with erasing(connection, GUARDRAIL_ERASURES, Forgetting(sessions).forget, drain_seconds=1), asyncio.timeout(180):
            while not await _is_recorded(admin):  # noqa: ASYNC110 - the bus signals nothing here
                await asyncio.sleep(0.05)
        kept = [await sessions.change(owner, lambda session: (session, dict(session.values))) for owner in (ada, bob)]

    assert time.time() >= order.open_until.ToMilliseconds() / 1000
    assert kept == [{}, {"<PERSON_1>": "Angela"}]
    assert (await admin.jetstream().stream_info("ERASURES")).state.messages == 0


async def _is_recorded(admin: Client) -> bool:
    try:
        found = await admin.jetstream().get_msg("AUDIT", subject=AUDIT.at(tenant="clinic", step="erased_guardrail"))
    except NotFoundError:
        return False
    return record_id("erasure/e1", "guardrail", 1).encode() in (found.data or b"")
