"""How a release is digested, signed and verified: the one definition that both sides share."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from strata.gateway.v1.gateway_events_pb2 import ToolCall
from strata.guardrail.v1.guardrail_service_pb2 import Release, ReleaseClaims

# Separates these signatures from any other use of the same key.
_CONTEXT = b"strata release v1\0"
# How long steps took is known only when the answer leaves; their tokens are in the sums, which are covered.
_NOT_COVERED = frozenset({"steps", "latency_ms"})


class VerifyKey(Protocol):
    """An Ed25519 public key, of whatever library."""

    def verify(self, signature: bytes, data: bytes, /) -> None:
        """Raise cryptography's InvalidSignature when `signature` is not one of `data`."""


class ReleaseInvalidError(Exception):
    """A release is unsigned, signed by an unknown key, altered, or meant for another request."""


def text_digest(text: str) -> bytes:
    """Return the SHA-256 of `text` in UTF-8."""
    return hashlib.sha256(text.encode()).digest()


def tool_calls_digest(calls: Iterable[ToolCall]) -> bytes:
    """Return the SHA-256 of the calls, or nothing when there are none."""
    body = b"".join(f"{c.id}\0{c.name}\0{c.arguments_json}\0".encode() for c in calls)
    return hashlib.sha256(body).digest() if body else b""


def completion_digest(completion: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of a completion as protobuf's JSON with names of the proto: no times, sorted keys, no spaces, 1.0 as 1."""
    covered = {name: _whole(value) for name, value in completion.items() if name not in _NOT_COVERED}
    return hashlib.sha256(json.dumps(covered, sort_keys=True, separators=(",", ":")).encode()).digest()


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {key: _whole(item) for key, item in value.items()} if isinstance(value, dict) else value


def sign(key: Ed25519PrivateKey, key_id: str, claims: ReleaseClaims, text: str, calls: Iterable[ToolCall] = ()) -> Release:
    """Return `text` and `calls` with claims that name their digests, signed."""
    calls = list(calls)
    claims.text_sha256 = text_digest(text)
    claims.tool_calls_sha256 = tool_calls_digest(calls)
    body = claims.SerializeToString(deterministic=True)
    return Release(claims=body, signature=key.sign(_CONTEXT + body), key_id=key_id, text=text, tool_calls=calls)


def verify(keys: Mapping[str, VerifyKey], release: Release, *, request_id: str, trace_id: str, tenant: str) -> ReleaseClaims:
    """Return the claims of a release that is valid for this request; raise ReleaseInvalidError otherwise."""
    key = keys.get(release.key_id)
    if key is None:
        raise ReleaseInvalidError(f"unknown signing key {release.key_id!r}")
    try:
        key.verify(release.signature, _CONTEXT + release.claims)
    except InvalidSignature as error:
        raise ReleaseInvalidError("the signature does not match") from error
    claims = ReleaseClaims.FromString(release.claims)
    if (claims.request_id, claims.trace_id, claims.tenant) != (request_id, trace_id, tenant):
        raise ReleaseInvalidError("the release is for another request")
    if claims.text_sha256 != text_digest(release.text) or claims.tool_calls_sha256 != tool_calls_digest(release.tool_calls):
        raise ReleaseInvalidError("the text is not the one that was released")
    return claims


def verify_completion(claims: ReleaseClaims, completion: Mapping[str, Any] | None) -> None:
    """Raise ReleaseInvalidError unless a completion, as JSON types, is the one that was released with these claims, or neither is there."""
    expected = completion_digest(completion) if completion is not None else b""
    if claims.completion_sha256 != expected:
        raise ReleaseInvalidError("the completion is not the one that was released")
