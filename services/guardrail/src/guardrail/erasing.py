"""Forgets what the pseudonyms of an erased person's sessions stand for."""

import time

from chassis.erasing import StillOpenError
from guardrail.personal.sessions import Owner, Sessions
from strata.audit.v1.audit_events_pb2 import ErasureOrdered


class Forgetting:
    """Carries out orders of audit."""

    def __init__(self, sessions: Sessions) -> None:
        """Bind the sessions."""
        self._sessions = sessions

    async def forget(self, order: ErasureOrdered) -> None:
        """Forget the sessions; raise StillOpenError while a request may still add to one of them."""
        for session_id in order.session_ids:
            await self._sessions.erase(Owner(order.tenant, order.user, session_id))
        if order.open_until.ToMilliseconds() / 1000 > time.time():
            raise StillOpenError("a request of these sessions may not be over")
