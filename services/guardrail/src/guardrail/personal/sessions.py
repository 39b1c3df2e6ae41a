"""Keeps what the pseudonyms of a session stand for, sealed for this session alone, for as long as its purpose needs."""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from chassis.errors import ConflictError, InternalError, UnavailableError
from chassis.messaging import Bus
from contracts.streams import SESSIONS
from contracts.subjects import token

_FORMAT = 1
_NONCE = 12
_ATTEMPTS = 8
_MOST_VALUES = 2000
T = TypeVar("T")


@dataclass(frozen=True)
class Owner:
    """Whose session it is: nobody else of the tenant opens it by its name."""

    tenant: str
    user: str
    session_id: str


@dataclass(frozen=True)
class Session:
    """What a session has come to: pseudonyms with their values, and whether personal data has appeared in it."""

    values: Mapping[str, str] = field(default_factory=dict)
    personal: bool = False
    revision: int = 0


class Sessions:
    """Sealed entries of the bucket; key and encryption key are derived from tenant, user and session."""

    def __init__(self, bus: Bus, key: bytes, *, purpose: str, retention_seconds: float) -> None:
        """Take the vault's key of 32 bytes, what the values are kept for, and for how long after the last turn."""
        self._bus, self._key, self._purpose, self._retention = bus, key, purpose, retention_seconds

    async def change(self, owner: Owner, work: Callable[[Session], tuple[Session, T]]) -> T:
        """Let `work` turn the session into another one and return its result; it runs again where another turn was faster.

        Raise UnavailableError without the bus and ConflictError when other turns are faster again and again.
        """
        try:
            bucket = await self._bus.js.key_value(SESSIONS)
            for _ in range(_ATTEMPTS):
                before = await self._read(bucket, owner)
                after, result = work(before)
                if (dict(after.values), after.personal) == ({}, False):
                    return result
                try:
                    await bucket.update(self._name(owner), self._sealed(after, owner), before.revision)
                except KeyWrongLastSequenceError:
                    continue
                return result
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the sessions cannot be reached: {error!r}") from error
        raise ConflictError("too many turns of this session at once", code="service_unavailable")

    async def erase(self, owner: Owner) -> bool:
        """Forget a session; return whether there was anything; raise UnavailableError."""
        try:
            bucket = await self._bus.js.key_value(SESSIONS)
            try:
                await bucket.get(self._name(owner))
            except KeyNotFoundError:
                return False
            await bucket.purge(self._name(owner))
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the sessions cannot be reached: {error!r}") from error
        return True

    async def _read(self, bucket: KeyValue, owner: Owner) -> Session:
        try:
            entry = await bucket.get(self._name(owner))
        except KeyNotFoundError as gone:
            # An update after an erasure must name the erasure's revision.
            return Session(revision=getattr(gone.entry, "revision", None) or 0)
        revision = entry.revision or 0
        try:
            record = json.loads(entry.value or b"")
            if record["v"] != _FORMAT or record["expires_at"] <= time.time():
                return Session(revision=revision)
            sealed = base64.b64decode(record["sealed"])
            plain = self._cipher(owner).decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound_to(owner, record["purpose"]))
            content = json.loads(plain)
        except (InvalidTag, ValueError, KeyError, TypeError) as error:
            raise InternalError("what is kept of this session cannot be read") from error
        return Session(content["values"], bool(content["personal"]), revision)

    def _sealed(self, session: Session, owner: Owner) -> bytes:
        if len(session.values) > _MOST_VALUES:
            raise ConflictError(f"a session keeps at most {_MOST_VALUES} pseudonyms; begin another one", code="invalid_request")
        now = time.time()
        content = json.dumps({"values": dict(session.values), "personal": session.personal}, ensure_ascii=False).encode()
        nonce = secrets.token_bytes(_NONCE)
        sealed = nonce + self._cipher(owner).encrypt(nonce, content, _bound_to(owner, self._purpose))
        record = {
            "v": _FORMAT,
            "purpose": self._purpose,
            "written_at": round(now, 3),
            "expires_at": round(now + self._retention, 3),
            "sealed": base64.b64encode(sealed).decode(),
        }
        return json.dumps(record).encode()

    def _name(self, owner: Owner) -> str:
        # A session's name may hold anything, personal data included.
        digest = hmac.new(self._key, _label("strata session name v1", owner), hashlib.sha256).hexdigest()
        return f"{token(owner.tenant, what='tenant')}.{digest}"

    def _cipher(self, owner: Owner) -> AESGCM:
        derived = HKDF(hashes.SHA256(), 32, salt=None, info=_label("strata session key v1", owner))
        return AESGCM(derived.derive(self._key))


def _label(what: str, owner: Owner) -> bytes:
    return json.dumps([what, owner.tenant, owner.user, owner.session_id]).encode()


def _bound_to(owner: Owner, purpose: str) -> bytes:
    return _label(f"strata session v1 {purpose}", owner)
