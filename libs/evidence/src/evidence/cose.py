"""COSE_Sign1 (RFC 9052) with Ed25519, as much of it as a signed statement needs."""

from collections.abc import Iterable
from io import BytesIO

import cbor2
from cryptography.exceptions import InvalidSignature

from tlog.notes import Signer, Verifier

_TAG = 18
_ALGORITHM, _CONTENT_TYPE, _KID = 1, 3, 4
_EDDSA = -8


class InvalidCoseError(ValueError):
    """The bytes are no COSE_Sign1 that a known key has signed."""


def kid(verifier: Verifier) -> bytes:
    """Return how a protected header names a key: `name+id`, as in its verifier key."""
    return f"{verifier.name}+{verifier.key_id.hex()}".encode()


def _to_sign(protected: bytes, payload: bytes) -> bytes:
    return cbor2.dumps(["Signature1", protected, b"", payload], canonical=True)


def sign(payload: bytes, signer: Signer, *, content_type: str) -> bytes:
    """Return the signed statement, tagged."""
    header = {_ALGORITHM: _EDDSA, _CONTENT_TYPE: content_type, _KID: kid(signer.verifier)}
    protected = cbor2.dumps(header, canonical=True)
    signature = signer.key.sign(_to_sign(protected, payload))
    return cbor2.dumps(cbor2.CBORTag(_TAG, [protected, {}, payload, signature]))


def verify(content: bytes, verifiers: Iterable[Verifier], *, content_type: str) -> bytes:
    """Return the payload that one of `verifiers` signed as `content_type`; raise InvalidCoseError for anything else."""
    protected, payload, signature = _parts(content)
    header = _decoded(protected)
    if not isinstance(header, dict) or header.get(_ALGORITHM) != _EDDSA or header.get(_CONTENT_TYPE) != content_type:
        raise InvalidCoseError(f"the protected header is not EdDSA over {content_type}")
    if set(header) != {_ALGORITHM, _CONTENT_TYPE, _KID}:
        raise InvalidCoseError("the protected header says what this program does not understand")
    for verifier in verifiers:
        if header[_KID] == kid(verifier):
            try:
                verifier.public.verify(signature, _to_sign(protected, payload))
            except InvalidSignature as error:
                raise InvalidCoseError(f"the signature of {verifier.name} does not match") from error
            return payload
    raise InvalidCoseError(f"signed by {header[_KID]!r}, which is none of the given keys")


def payload_of(content: bytes) -> bytes:
    """Return the payload without checking who signed it; raise InvalidCoseError when it is no COSE_Sign1."""
    return _parts(content)[1]


def _parts(content: bytes) -> tuple[bytes, bytes, bytes]:
    found = _decoded(content)
    if not isinstance(found, cbor2.CBORTag) or found.tag != _TAG or not isinstance(found.value, list | tuple) or len(found.value) != 4:
        raise InvalidCoseError("not a COSE_Sign1")
    protected, unprotected, payload, signature = found.value
    if unprotected or not all(isinstance(part, bytes) for part in (protected, payload, signature)):
        raise InvalidCoseError("not a COSE_Sign1 with its payload and no unprotected header")
    return protected, payload, signature


def _decoded(content: bytes) -> object:
    file = BytesIO(content)
    try:
        found = cbor2.load(file)
    except Exception as error:
        raise InvalidCoseError(f"not CBOR: {error!r}") from error
    if file.read(1):
        raise InvalidCoseError("there is more after the CBOR item")
    return found  # type: ignore[no-any-return,unused-ignore]
