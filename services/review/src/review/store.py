"""Reviews in the key-value bucket: one value each, and a write that only the last reader can make."""

import asyncio
from collections.abc import Callable

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from chassis.errors import NotFoundError, UnavailableError
from chassis.messaging import Bus
from contracts.streams import REVIEWS
from review.board import Board
from strata.review.v1.review_events_pb2 import ReviewItem

_ATTEMPTS = 20


def key_of(tenant: str, request_id: str) -> str:
    """Return the key of a request's review."""
    return f"{tenant}.{request_id}"


class Store:
    """Creates, reads and changes reviews, and tells the board what it wrote."""

    def __init__(self, bus: Bus, board: Board) -> None:
        """Use the bus' connection."""
        self._bus, self._board = bus, board
        self._bucket: KeyValue | None = None

    async def load(self, key: str) -> tuple[ReviewItem, int]:
        """Return a review and its revision; raise NotFoundError or UnavailableError."""
        try:
            entry = await (await self._kv()).get(key)
        except KeyNotFoundError as error:
            raise NotFoundError(f"no review of {key.partition('.')[2]!r}") from error
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the review {key!r} cannot be read: {error!r}") from error
        return ReviewItem.FromString(entry.value or b""), entry.revision or 0

    async def create(self, item: ReviewItem) -> bool:
        """Write a new review; return whether there was none."""
        key = key_of(item.tenant, item.request_id)
        try:
            revision = await (await self._kv()).create(key, item.SerializeToString())
        except KeyWrongLastSequenceError:
            return False
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the review {key!r} was not taken: {error!r}") from error
        self._board.put(key, item, revision)
        return True

    async def change(self, key: str, work: Callable[[ReviewItem], None]) -> ReviewItem:
        """Apply `work` to the last version and write it; whoever was faster is seen by the next attempt."""
        for attempt in range(_ATTEMPTS):
            item, revision = await self.load(key)
            item.changes += 1
            before = item.SerializeToString()
            work(item)
            item_bytes = item.SerializeToString()
            if item_bytes == before:
                return item
            try:
                revision = await (await self._kv()).update(key, item_bytes, revision)
            except KeyWrongLastSequenceError:
                await asyncio.sleep(0.01 * attempt)
                continue
            except (TimeoutError, NatsError, JetStreamError) as error:
                raise UnavailableError(f"the review {key!r} was not taken: {error!r}") from error
            self._board.put(key, item, revision)
            return item
        raise UnavailableError(f"the review {key!r} changes faster than it can be written")

    async def purge(self, key: str) -> None:
        """Remove a review with all its versions, if there is one; raise UnavailableError."""
        bucket = await self._kv()
        try:
            await bucket.get(key)
            await bucket.purge(key)
        except KeyNotFoundError:
            return
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the review {key!r} was not removed: {error!r}") from error

    async def _kv(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._bus.js.key_value(REVIEWS)
        return self._bucket
