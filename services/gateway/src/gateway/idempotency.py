"""A repeat with the same key is the same request, on whichever gateway it arrives."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace

from nats.errors import Error as NatsError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from chassis.errors import UnavailableError
from chassis.messaging import Bus
from contracts.streams import IDEMPOTENCY
from gateway.refusals import RefusedError
from strata.gateway.v1.gateway_events_pb2 import Caller

_MAX_KEY = 255


@dataclass(frozen=True)
class Claim:
    """Which request a key stands for."""

    tenant: str
    request_id: str
    trace_id: str
    body_sha256: str
    admitted: bool
    at: float


@dataclass(frozen=True)
class Held:
    """A claim as it is stored; `mine` says that this gateway must admit the request, after another perhaps did."""

    name: str
    claim: Claim
    revision: int
    mine: bool
    taken_over: bool = False


class Idempotency:
    """The claims of the last day, on the bus."""

    def __init__(self, bus: Bus, takeover_seconds: float) -> None:
        """Bind the bucket; nothing is read before `claim`."""
        self._bus, self._takeover = bus, takeover_seconds
        self._bucket: KeyValue | None = None

    async def claim(self, name: str, claim: Claim) -> Held:
        """Return the claim of `name`, ours or an earlier one; raise RefusedError when that is of another body."""
        try:
            bucket = await self._open()
            try:
                return Held(name, claim, await bucket.create(name, _encode(claim)), mine=True)
            except KeyWrongLastSequenceError:
                return await self._earlier(bucket, name, claim)
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the bus did not take the claim: {error!r}") from error

    async def _earlier(self, bucket: KeyValue, name: str, claim: Claim) -> Held:
        try:
            entry = await bucket.get(name)
        except KeyNotFoundError as error:
            raise UnavailableError("the earlier claim has just ended") from error
        earlier = Claim(**json.loads(entry.value or b"{}"))
        revision = entry.revision or 0
        if (earlier.tenant, earlier.body_sha256) != (claim.tenant, claim.body_sha256):
            raise RefusedError("idempotency_conflict")
        if earlier.admitted or time.time() - earlier.at < self._takeover:
            return Held(name, earlier, revision, mine=False)
        # Its gateway died between claim and admission; of several repeats one wins.
        taken = replace(earlier, at=time.time())
        try:
            return Held(name, taken, await bucket.update(name, _encode(taken), last=revision), mine=True, taken_over=True)
        except KeyWrongLastSequenceError:
            return Held(name, earlier, revision, mine=False)

    async def settle(self, held: Held, *, admitted: bool) -> None:
        """Write that the request is admitted, or that the claim may be taken over at once."""
        at = held.claim.at if admitted else 0.0
        try:
            bucket = await self._open()
            await bucket.update(held.name, _encode(replace(held.claim, admitted=admitted, at=at)), last=held.revision)
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the bus did not take the claim: {error!r}") from error

    async def _open(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._bus.js.key_value(IDEMPOTENCY)
        return self._bucket


def _encode(claim: Claim) -> bytes:
    return json.dumps(asdict(claim)).encode()


def key_name(caller: Caller, key: str) -> str:
    """Return where the claim of a client's key lies: apart for each credential, because answers depend on who asks."""
    if not 0 < len(key) <= _MAX_KEY:
        raise RefusedError("invalid_request", f"Idempotency-Key must have 1 to {_MAX_KEY} characters.", param="Idempotency-Key")
    return f"k.{caller.tenant}.{hashlib.sha256(json.dumps([caller.key_id, caller.user, caller.role, key]).encode()).hexdigest()}"


def id_name(request_id: str) -> str:
    """Return where the claim of an identifier lies that a client chose; it holds for all tenants."""
    return f"r.{request_id}"
