"""Seals what pseudonyms stand for, so that only guardrail opens it, and only for the same request."""

import base64
import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.errors import InvalidArgumentError

_FORMAT = b"\x01"
_NONCE = 12


class Vault:
    """AES-256-GCM over the mapping, bound to tenant and request."""

    def __init__(self, key: bytes) -> None:
        """Take a key of 32 bytes."""
        self.key = key
        self._cipher = AESGCM(key)

    @classmethod
    def open_key(cls, path: Path) -> "Vault":
        """Read the key that the first start wrote; raise OSError or ValueError."""
        return cls(base64.urlsafe_b64decode(path.read_bytes()))

    def seal(self, values: Mapping[str, str], *, tenant: str, request_id: str) -> bytes:
        """Return `values` encrypted; nothing for nothing."""
        if not values:
            return b""
        nonce = secrets.token_bytes(_NONCE)
        plain = json.dumps(dict(values), ensure_ascii=False).encode()
        return _FORMAT + nonce + self._cipher.encrypt(nonce, plain, _bound_to(tenant, request_id))

    def unseal(self, sealed: bytes, *, tenant: str, request_id: str) -> dict[str, str]:
        """Return what was sealed; raise InvalidArgumentError for another request's vault or an altered one."""
        if not sealed:
            return {}
        nonce, body = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        if sealed[:1] != _FORMAT:
            raise InvalidArgumentError("the vault has an unknown format")
        try:
            plain = self._cipher.decrypt(nonce, body, _bound_to(tenant, request_id))
        except (InvalidTag, ValueError) as error:
            raise InvalidArgumentError("the vault is not the one of this request") from error
        values: dict[str, str] = json.loads(plain)
        return values


def _bound_to(tenant: str, request_id: str) -> bytes:
    return json.dumps(["strata vault v1", tenant, request_id]).encode()
