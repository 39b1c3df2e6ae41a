"""Reads from the bus for as long as a block lasts, whatever becomes of the bus meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.errors import Error as NatsError

from chassis.logging import get_logger
from chassis.messaging import Consumer

log = get_logger("consuming")
_PAUSE_SECONDS = 0.5


@asynccontextmanager
async def consuming(*consumers: Consumer, drain_seconds: float) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run the consumers until the block ends, then finish or hand back what they read; yield their tasks, which end no earlier."""
    tasks = [asyncio.create_task(_forever(consumer)) for consumer in consumers]
    try:
        yield tasks
    finally:
        await asyncio.gather(*(consumer.stop(drain_seconds) for consumer in consumers))
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forever(consumer: Consumer) -> None:
    """Keep reading; a loop that ends on a fault of the bus would strand what others leave behind."""
    while True:
        try:
            await consumer.run()
            return
        except NatsError:
            log.exception("reading_failed")
            await asyncio.sleep(_PAUSE_SECONDS)
