"""The registrations of tenants: a value per webhook, its secrets sealed with a key that this service alone holds."""

import base64
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nats.errors import Error as NatsError
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.errors import Error as JetStreamError

from chassis.errors import ConflictError, InternalError, NotFoundError, UnavailableError
from chassis.messaging import Bus, canonical_json
from chassis.mirror import Mirror
from chassis.provisioning import write_private
from contracts.streams import WEBHOOKS

EVENTS = ("request.finished", "escalation.created", "review.decided")
TEST = "webhook.test"
_NONCE = 12


@dataclass(frozen=True)
class Secret:
    """A sealed secret, base64, and when it stops to sign; None for the current one."""

    sealed: str
    expires_at: float | None = None


@dataclass(frozen=True)
class Webhook:
    """One registration."""

    id: str
    tenant: str
    url: str
    events: tuple[str, ...]
    secrets: tuple[Secret, ...]
    created_at: float
    created_by: str
    enabled: bool = True
    disabled_reason: str = ""

    @property
    def key(self) -> str:
        """Key of the registration."""
        return f"{self.tenant}.{self.id}"


class Sealer:
    """Seals secrets with AES-256-GCM, bound to tenant and webhook."""

    def __init__(self, key: bytes) -> None:
        """Take a key of 32 bytes."""
        self._aead = AESGCM(key)

    @classmethod
    def open(cls, path: Path) -> "Sealer":
        """Read the key; the first start makes it."""
        if not path.exists():
            write_private(path, AESGCM.generate_key(256))
        return cls(path.read_bytes())

    def seal(self, secret: str, about: str) -> str:
        """Return the sealed secret of the webhook `about`."""
        nonce = os.urandom(_NONCE)
        return base64.b64encode(nonce + self._aead.encrypt(nonce, secret.encode(), about.encode())).decode()

    def unseal(self, sealed: str, about: str) -> str:
        """Return the secret; raise InternalError when it was sealed for another webhook or altered."""
        raw = base64.b64decode(sealed)
        try:
            return self._aead.decrypt(raw[:_NONCE], raw[_NONCE:], about.encode()).decode()
        except InvalidTag as error:
            raise InternalError("a stored secret is not the one of its webhook") from error


@dataclass
class Health:
    """What this process has seen of one webhook."""

    failures: int = 0


@dataclass
class Registry:
    """Reads from memory, writes with a fence."""

    bus: Bus
    sealer: Sealer
    mirror: Mirror[Webhook]
    health: dict[str, Health] = field(default_factory=dict)

    def of(self, tenant: str) -> Iterator[Webhook]:
        """Yield a tenant's registrations."""
        prefix = f"{tenant}."
        return (webhook for key, webhook in list(self.mirror.entries.items()) if key.startswith(prefix))

    def find(self, tenant: str, webhook_id: str) -> Webhook:
        """Return one registration; raise NotFoundError."""
        found = self.mirror.entries.get(f"{tenant}.{webhook_id}")
        if found is None:
            raise NotFoundError("no such webhook")
        return found

    def keys_of(self, webhook: Webhook) -> list[str]:
        """Return the secrets that sign now, the newest first."""
        now = time.time()
        valid = [s for s in webhook.secrets if s.expires_at is None or s.expires_at > now]
        return [self.sealer.unseal(secret.sealed, webhook.key) for secret in valid]

    def health_of(self, webhook: Webhook) -> Health:
        """Return what is known of its last attempts."""
        return self.health.setdefault(webhook.key, Health())

    async def save(self, webhook: Webhook, before: Webhook | None = None) -> None:
        """Store a registration that was `before`; raise ConflictError when somebody else changed it meanwhile."""
        value = canonical_json(asdict(webhook))
        try:
            bucket = await self.bus.js.key_value(WEBHOOKS)
            if before is None:
                await bucket.create(webhook.key, value)
            else:
                entry = await bucket.get(webhook.key)
                if decode(webhook.key, entry.value or b"") != before:
                    raise _changed()
                await bucket.update(webhook.key, value, last=entry.revision)
        except KeyNotFoundError as error:
            raise NotFoundError("no such webhook") from error
        except (KeyWrongLastSequenceError, APIError) as error:
            raise _changed() from error
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the registrations cannot be written: {error!r}") from error
        self.mirror.entries[webhook.key] = webhook

    async def delete(self, webhook: Webhook) -> None:
        """Forget a registration."""
        try:
            await (await self.bus.js.key_value(WEBHOOKS)).delete(webhook.key)
        except (TimeoutError, NatsError, JetStreamError) as error:
            raise UnavailableError(f"the registrations cannot be written: {error!r}") from error
        self.mirror.entries.pop(webhook.key, None)
        self.health.pop(webhook.key, None)

    async def disable(self, webhook: Webhook, reason: str) -> None:
        """Send nothing there any more until a person enables it."""
        await self.save(replace(webhook, enabled=False, disabled_reason=reason), webhook)


def new_id() -> str:
    """Return an identifier of a registration."""
    return f"wh_{secrets.token_hex(8)}"


def decode(key: str, value: bytes) -> Webhook:
    """Return a stored registration; raise ValueError, KeyError or TypeError for anything else."""
    record = json.loads(value)
    found = Webhook(**{**record, "events": tuple(record["events"]), "secrets": tuple(Secret(**s) for s in record["secrets"])})
    if found.key != key:
        raise ValueError("the record is of another webhook")
    return found


def _changed() -> ConflictError:
    return ConflictError("the webhook was changed by somebody else; try again", code="webhook_changed")
