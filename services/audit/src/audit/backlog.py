"""How full the stream of records is: what is logged leaves it, and what is not must not fill it."""

import asyncio

from nats.errors import Error as NatsError
from nats.js.api import StreamInfo
from nats.js.errors import Error as JetStreamError
from prometheus_client import Gauge

from chassis.logging import get_logger
from chassis.messaging import Bus
from contracts.streams import AUDIT_WRITER

log = get_logger("backlog")
_SECONDS = 1.0
# The rest is for the records of requests that were admitted before.
_MOST_FILLED = 0.8

FILLED = Gauge("strata_audit_stream_filled_ratio", "Share of the stream's bound that records take which are not logged yet.")


class Backlog:
    """Watches the stream of records for as long as this process writes the log."""

    def __init__(self, bus: Bus) -> None:
        """Find nothing wrong before `run`."""
        self._bus = bus
        self.problem = ""

    async def run(self) -> None:
        """Look every second; what cannot be asked stays as it was."""
        while True:
            try:
                info = await self._bus.js.stream_info(AUDIT_WRITER.stream)
            except (TimeoutError, NatsError, JetStreamError) as error:
                log.warning("stream_not_asked", error=repr(error))
            else:
                self.problem = _problem(info)
            await asyncio.sleep(_SECONDS)


def _problem(info: StreamInfo) -> str:
    """Return why no request should be admitted, or nothing."""
    bound = info.config.max_bytes or 0
    filled = info.state.bytes / bound if bound > 0 else 0.0
    FILLED.set(filled)
    if not info.state.consumer_count:
        return f"nobody reads the stream {AUDIT_WRITER.stream}, which keeps nothing then; declare the streams again (`strata up` does)"
    if filled >= _MOST_FILLED:
        return f"{filled:.0%} of the stream {AUDIT_WRITER.stream} are records that are not logged yet"
    return ""
