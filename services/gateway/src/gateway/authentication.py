"""Who asks: a key of ours or a token of the identity provider."""

import json
import time
from dataclasses import dataclass
from datetime import datetime

from chassis.mirror import Mirror
from contracts import keys
from contracts.subjects import InvalidTokenError, token
from gateway.catalogue import Catalogue
from gateway.refusals import RefusedError
from gateway.tokens import TokenVerifier
from strata.gateway.v1.gateway_events_pb2 import Caller


@dataclass(frozen=True)
class StoredKey:
    """What is known of an API key."""

    digest: str
    caller: Caller
    expires_at: float | None
    revoked: bool


class Authenticator:
    """Turns an Authorization header into a caller."""

    def __init__(self, stored: Mirror[StoredKey], catalogue: Catalogue, tokens: TokenVerifier | None) -> None:
        """Bind where keys, roles and tokens are known."""
        self._stored, self._catalogue, self._tokens = stored, catalogue, tokens

    def authenticate(self, header: str | None) -> Caller:
        """Return who asks; raise RefusedError for anyone unknown."""
        scheme, _, credential = (header or "").partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            raise RefusedError("invalid_api_key", "Send it as 'Authorization: Bearer ...'.")
        parsed = keys.parse(credential)
        if parsed:
            return self._by_key(*parsed)
        if self._tokens is not None and credential.count(".") == 2:
            return self._by_token(self._tokens, credential)
        raise RefusedError("invalid_api_key")

    def _by_key(self, key_id: str, secret: str) -> Caller:
        stored = self._stored.entries.get(key_id)
        if stored is None or not keys.matches(key_id, secret, stored.digest):
            raise RefusedError("invalid_api_key")
        if stored.revoked or (stored.expires_at is not None and time.time() >= stored.expires_at):
            raise RefusedError("invalid_api_key")
        return stored.caller

    def _by_token(self, tokens: TokenVerifier, credential: str) -> Caller:
        claims = tokens.verify(credential)
        try:
            tenant = token(claims.tenant, what="tenant")
        except InvalidTokenError as error:
            raise RefusedError("invalid_api_key", "The token's tenant is not a valid name.") from error
        return self._catalogue.caller(tenant=tenant, role=claims.role, user=claims.user, key_id=claims.key_id)


def decode_key(catalogue: Catalogue, key_id: str, value: bytes) -> StoredKey:
    """Return a stored key; raise ValueError or KeyError for one that must not be used."""
    record = json.loads(value)
    if record["key_id"] != key_id:
        raise ValueError("the record is of another key")
    expires = record.get("expires_at")
    return StoredKey(
        digest=record["digest"],
        caller=catalogue.caller(
            tenant=token(record["tenant"], what="tenant"), role=record["role"], user=record.get("user") or "", key_id=key_id
        ),
        expires_at=_timestamp(expires) if expires else None,
        revoked=bool(record.get("revoked")),
    )


def _timestamp(value: str | float) -> float:
    if isinstance(value, (int, float)):
        return float(value)
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("expires_at needs a time zone")
    return moment.timestamp()
