"""Puts released windows in order, and lets nothing through that guardrail did not sign for this request."""

import base64
import binascii
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from chassis.messaging import to_json
from chassis.provisioning import load_release_keys
from contracts import releases
from contracts.errors import ERRORS
from contracts.releases import ReleaseInvalidError
from strata.gateway.v1.gateway_events_pb2 import ToolCall
from strata.guardrail.v1.guardrail_service_pb2 import Release
from strata.orchestrator.v1.orchestrator_events_pb2 import ResponseReleased

_REREAD_SECONDS = 1.0
_REFRESH_SECONDS = 30.0
_MAX_AHEAD = 256


class SodiumKey:
    """A release key in libsodium, which verifies in half of OpenSSL's time."""

    __slots__ = ("_key",)

    def __init__(self, raw: bytes) -> None:
        """Take the 32 bytes of a public key."""
        self._key = VerifyKey(raw)

    def verify(self, signature: bytes, data: bytes, /) -> None:
        """Raise InvalidSignature when `signature` is not one of `data`."""
        try:
            self._key.verify(data, signature)
        except (BadSignatureError, ValueError) as error:
            raise InvalidSignature from error


class ReleaseKeys(dict[str, SodiumKey]):
    """The keys whose releases are valid; read again when an unknown one is named."""

    def __init__(self, state_dir: Path) -> None:
        """Read the keys; raise OSError when there are none."""
        super().__init__()
        self._state_dir = state_dir
        self._read()

    def _read(self) -> None:
        self._read_at = time.monotonic()
        keys = load_release_keys(self._state_dir)
        self.clear()
        self.update({name: SodiumKey(key.public_bytes(Encoding.Raw, PublicFormat.Raw)) for name, key in keys.items()})

    def learn(self, key_id: str) -> None:
        """Read the keys again for an unknown one, at most once a second, and now and then for those that were retired."""
        age = time.monotonic() - self._read_at
        if age > _REFRESH_SECONDS or (key_id not in self and age > _REREAD_SECONDS):
            with suppress(OSError, ValueError):
                self._read()


@dataclass(slots=True, frozen=True)
class Window:
    """A verified piece of an answer."""

    sequence: int
    text: str
    tool_calls: tuple[ToolCall, ...]
    final: bool
    status: str
    completion: dict[str, Any] | None


class Assembly:
    """The answer to one request as far as it has arrived."""

    __slots__ = ("_keys", "_next", "_request_id", "_reviewed", "_tenant", "_trace_id", "_waiting", "done", "error_code")

    def __init__(self, keys: ReleaseKeys, *, tenant: str, request_id: str, trace_id: str = "", reviewed: bool = False) -> None:
        """Wait for windows of a request, or of the decision of its review; without a trace id the first valid release sets it."""
        self._reviewed = reviewed
        self._keys, self._tenant, self._request_id, self._trace_id = keys, tenant, request_id, trace_id
        self._next = 0
        self._waiting: dict[int, Window] = {}
        self.done = False
        self.error_code = ""

    def take(self, data: bytes) -> list[Window]:
        """Return the windows that can be delivered now, in order; raise ReleaseInvalidError for what must not pass."""
        if self.done:
            return []
        message = _parse(data)
        if message.get("request_id") != self._request_id:
            raise ReleaseInvalidError("the response is for another request")
        raw = message.get("release")
        if raw is None:
            self._fail(message)
            return []
        window = self._verified(message, raw)
        if window.sequence < self._next or window.sequence in self._waiting:
            return []
        if window.sequence - self._next > _MAX_AHEAD:
            raise ReleaseInvalidError("the window is too far ahead")
        self._waiting[window.sequence] = window
        return self._deliverable()

    def _deliverable(self) -> list[Window]:
        ready: list[Window] = []
        while not self.done and (window := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            self.done = window.final
            ready.append(window)
        return ready

    def _fail(self, message: dict[str, Any]) -> None:
        code = message.get("error_code", "")
        if not code or (self._trace_id and message.get("trace_id") not in ("", None, self._trace_id)):
            raise ReleaseInvalidError("the response has no release")
        self.error_code, self.done = (code if code in ERRORS else "internal_error"), True

    def _verified(self, message: dict[str, Any], raw: dict[str, Any]) -> Window:
        release = _release(raw)
        self._keys.learn(release.key_id)
        trace_id = self._trace_id or str(message.get("trace_id", ""))
        claims = releases.verify(self._keys, release, request_id=self._request_id, trace_id=trace_id, tenant=self._tenant)
        if claims.reviewed != self._reviewed:
            raise ReleaseInvalidError("the release is for another place")
        completion = message.get("completion")
        if completion is not None and not isinstance(completion, dict):
            raise ReleaseInvalidError("not a completion")
        if completion is not None and completion.get("status", "") not in ("", claims.status):
            raise ReleaseInvalidError("the status is not the one that was released")
        if claims.final and completion is None:
            raise ReleaseInvalidError("the last window has no completion")
        releases.verify_completion(claims, completion)
        self._trace_id = trace_id
        return Window(claims.sequence, release.text, tuple(release.tool_calls), claims.final, claims.status, completion)

    @property
    def has_gap(self) -> bool:
        """Whether a later window is here and an earlier one is not."""
        return bool(self._waiting)

    @property
    def trace_id(self) -> str:
        """Trace of the request, once known."""
        return self._trace_id


def _parse(data: bytes) -> dict[str, Any]:
    """Return a response with its field names as in the proto; the slow way for writers that use protobuf's other mapping."""
    try:
        message = json.loads(data)
        if isinstance(message, dict) and "request_id" in message:
            return message
        return to_json(json_format.Parse(data, ResponseReleased(), ignore_unknown_fields=True))
    except (ValueError, RecursionError, json_format.ParseError) as error:
        raise ReleaseInvalidError("not a response") from error


def _release(raw: dict[str, Any]) -> Release:
    try:
        return Release(
            claims=base64.b64decode(raw.get("claims", "")),
            signature=base64.b64decode(raw.get("signature", "")),
            key_id=raw.get("key_id", ""),
            text=raw.get("text", ""),
            tool_calls=[
                ToolCall(id=c.get("id", ""), name=c.get("name", ""), arguments_json=c.get("arguments_json", ""))
                for c in raw.get("tool_calls", ())
            ],
        )
    except (AttributeError, TypeError, ValueError, binascii.Error, DecodeError) as error:
        raise ReleaseInvalidError("not a release") from error
