"""The sealed part of a leaf: AES-256-GCM under a key that opens this one record and no other."""

import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
COMMITMENT_BYTES = 32
_INFO = b"strata audit record key v1"
_COMMITMENT = b"strata audit key commitment v1"


class SealedError(Exception):
    """What is sealed cannot be opened with this key; it, its header or the key is not the one of the record."""


def _derive(data_key: bytes, nonce: bytes) -> bytes:
    """Return the record's key: HKDF-SHA256 (RFC 5869) of the subject's key, salted with the nonce, 32 bytes."""
    secret = hmac.digest(nonce, data_key, "sha256")
    return hmac.digest(secret, _INFO + b"\x01", "sha256")


def _commitment(record_key: bytes) -> bytes:
    return hashlib.sha256(_COMMITMENT + record_key).digest()


def seal(data_key: bytes, plain: bytes, header: bytes) -> bytes:
    """Return nonce, commitment to the key and ciphertext; `header` is bound to them and stays readable elsewhere."""
    nonce = os.urandom(NONCE_BYTES)
    key = _derive(data_key, nonce)
    # AES-GCM alone lets a forger make one text that two keys open to two stories.
    return nonce + _commitment(key) + AESGCM(key).encrypt(nonce, plain, header)


def record_key(data_key: bytes, sealed: bytes) -> bytes:
    """Return the key of this record alone; handing it out opens nothing else of the subject."""
    return _derive(data_key, sealed[:NONCE_BYTES])


def open_sealed(key: bytes, sealed: bytes, header: bytes) -> bytes:
    """Return what the record's key opens; raise SealedError when it is another record's key or anything was changed."""
    nonce, content = sealed[:NONCE_BYTES], sealed[NONCE_BYTES + COMMITMENT_BYTES :]
    if not hmac.compare_digest(_commitment(key), sealed[NONCE_BYTES : NONCE_BYTES + COMMITMENT_BYTES]):
        raise SealedError("the key is not the one to which the record commits")
    try:
        return AESGCM(key).decrypt(nonce, content, header)
    except (InvalidTag, ValueError) as error:
        raise SealedError("the record or its header was changed") from error
