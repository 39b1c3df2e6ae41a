"""Run records in the key-value bucket: one value per run, and a write that only its owner can make."""

from nats.errors import Error as NatsError
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError
from nats.js.kv import KV_OP, KV_PURGE

from chassis.errors import InvalidArgumentError, UnavailableError
from chassis.messaging import Bus
from contracts.streams import RUNS
from strata.orchestrator.v1.orchestrator_events_pb2 import RunRecord

EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
_STREAM = f"KV_{RUNS}"
_WRONG_LAST = frozenset({10071, 10164})


class StaleOwnerError(Exception):
    """Another instance owns the run now; whatever runs here must stop without a word."""


def is_wrong_last(error: APIError) -> bool:
    """Return whether the bus refused a write because somebody else wrote before."""
    return error.err_code in _WRONG_LAST


class RunStore:
    """Creates, reads and updates run records, each update fenced by the revision before."""

    def __init__(self, bus: Bus, *, limit_bytes: int) -> None:
        """Use the bus' connection; records of more than `limit_bytes` are refused."""
        self._bus, self._limit = bus, limit_bytes

    async def load(self, key: str) -> tuple[RunRecord, int] | None:
        """Return the record and its revision, or None when there is none."""
        try:
            found = await self._bus.js.get_msg(_STREAM, subject=_subject(key), direct=True)
        except NotFoundError:
            return None
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the run record {key!r} cannot be read: {error!r}") from error
        if not found.data or not found.seq:
            return None
        return RunRecord.FromString(found.data), found.seq

    async def is_purged(self, key: str) -> bool:
        """Return whether the record was there and its request is erased."""
        try:
            found = await self._bus.js.get_msg(_STREAM, subject=_subject(key), direct=True)
        except NotFoundError:
            return False
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the run record {key!r} cannot be read: {error!r}") from error
        return (found.headers or {}).get(KV_OP) == KV_PURGE

    async def create(self, key: str, record: RunRecord) -> int | None:
        """Write the first version and return its revision, or None when the run exists already."""
        try:
            return await self.save(key, record, 0)
        except StaleOwnerError:
            return None

    def check(self, record: RunRecord) -> None:
        """Raise InvalidArgumentError, naming the largest field, for a record that is too large to be written."""
        if (size := record.ByteSize()) > self._limit:
            raise _oversize(record, size, self._limit)

    async def save(self, key: str, record: RunRecord, revision: int) -> int:
        """Replace the version `revision` and return the new one; raise StaleOwnerError when it is not the last any more."""
        data = record.SerializeToString()
        headers = {EXPECTED_LAST: str(revision)}
        try:
            ack = await self._bus.js.publish(_subject(key), data, headers=headers, timeout=self._bus.timeout_seconds)
        except APIError as error:
            if is_wrong_last(error):
                raise StaleOwnerError(key) from error
            raise UnavailableError(f"the run record {key!r} was refused: {error}") from error
        except (TimeoutError, NatsError, NoStreamResponseError) as error:
            raise UnavailableError(f"the run record {key!r} was not taken: {error!r}") from error
        return ack.seq


def _subject(key: str) -> str:
    return f"$KV.{RUNS}.{key}"


def _oversize(record: RunRecord, size: int, limit: int) -> InvalidArgumentError:
    """Return the error that names the largest field."""
    sizes = {f"steps.{name}.result": step.result.ByteSize() for name, step in record.steps.items()}
    sizes["request"] = record.request.ByteSize()
    sizes["screened_messages"] = sum(message.ByteSize() for message in record.screened_messages)
    sizes["vault"] = len(record.vault)
    largest = max(sizes, key=lambda name: sizes[name])
    return InvalidArgumentError(
        f"the run record would have {size} bytes, more than {limit}; its largest field is {largest!r} with {sizes[largest]} bytes",
        code="request_too_large",
    )
