"""Tokens of an identity provider, verified against its published keys."""

import asyncio
import json
import time
import warnings
from dataclasses import dataclass
from typing import Any

import httpx
from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from chassis.errors import UnauthenticatedError, UnavailableError
from chassis.logging import get_logger
from chassis.tasks import in_time
from gateway.settings import JwtSettings

log = get_logger("tokens")
ALGORITHMS = ["RS256", "ES256", "EdDSA", "Ed25519"]
_MAX_TOKEN = 8192
_UNKNOWN_KEY_SECONDS = 5.0
_RETRY_SECONDS = 2.0

# EdDSA is the name that issuers still write.
warnings.filterwarnings("ignore", category=SecurityWarning)


@dataclass(frozen=True)
class Claims:
    """What a verified token says."""

    tenant: str
    role: str
    user: str
    key_id: str


class TokenVerifier:
    """Verifies tokens of one issuer; its keys are held in memory and read again in the background."""

    def __init__(self, settings: JwtSettings) -> None:
        """Bind the issuer; nothing is read before `load`."""
        self._settings = settings
        self._keys: KeySet | None = None
        self._wanted = asyncio.Event()
        self._read_at = 0.0
        self._registry = JWSRegistry(algorithms=ALGORITHMS)
        self._claims = jwt.JWTClaimsRegistry(
            leeway=int(settings.leeway_seconds),
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": settings.audience},
            exp={"essential": True},
            tenant={"essential": True},
            role={"essential": True},
            sub={"essential": True},
        )

    async def load(self) -> None:
        """Read the key set; raise OSError or ValueError when it cannot be read."""
        self._read_at = time.monotonic()
        if self._settings.jwks_file:
            document = json.loads(self._settings.jwks_file.read_text())
        else:
            async with httpx.AsyncClient(timeout=5) as client:
                document = (await client.get(self._settings.jwks_url)).raise_for_status().json()
        # A symmetric key in a public document would let anyone who reads it sign.
        public = [key for key in document["keys"] if key.get("kty") in ("RSA", "EC", "OKP")]
        self._keys = KeySet.import_key_set({"keys": public})

    async def run(self) -> None:
        """Keep the key set fresh for ever."""
        while True:
            try:
                await self.load()
                wait = self._settings.refresh_seconds
            except (OSError, ValueError, KeyError, TypeError, httpx.HTTPError, JoseError) as error:
                log.warning("jwks_unreadable", error=repr(error))
                wait = _RETRY_SECONDS
            self._wanted.clear()
            try:
                await in_time(wait, self._wanted.wait())
            except TimeoutError:
                continue
            await asyncio.sleep(max(0.0, self._read_at + _UNKNOWN_KEY_SECONDS - time.monotonic()))

    def verify(self, token: str) -> Claims:
        """Return the claims of a valid token; raise UnauthenticatedError for any other, UnavailableError without keys."""
        if len(token) > _MAX_TOKEN:
            raise UnauthenticatedError("token too long")
        if self._keys is None:
            raise UnavailableError("the issuer's keys are not known yet")
        try:
            decoded = jwt.decode(token, self._keys, algorithms=ALGORITHMS, registry=self._registry)
            self._claims.validate(decoded.claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            # The issuer may have rotated its keys.
            self._wanted.set()
            raise UnauthenticatedError(f"token refused: {error}") from error
        return _claims(decoded.claims, str(decoded.header.get("kid", "")))


def _claims(claims: dict[str, Any], kid: str) -> Claims:
    values = [claims[name] for name in ("tenant", "role", "sub")]
    if not all(isinstance(value, str) for value in values):
        raise UnauthenticatedError("tenant, role and sub must be strings")
    tenant, role, user = values
    return Claims(tenant, role, user, f"jwt:{kid[:64]}" if kid else "jwt")
