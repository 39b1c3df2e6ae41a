"""The windows of one request's answer: what has left already, and a publish that only one owner can win."""

import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nats.errors import Error as NatsError
from nats.js.errors import APIError, NoStreamResponseError

from chassis import telemetry
from chassis.errors import InvalidArgumentError, UnavailableError
from chassis.json_mapping import to_json_bytes
from chassis.logging import get_logger
from chassis.messaging import Bus, cloud_event, decode, encode
from chassis.provisioning import load_release_keys
from contracts.releases import ReleaseInvalidError, verify, verify_completion
from contracts.subjects import DECISION, RESPONSE, Subject
from orchestrator.records import EXPECTED_LAST, StaleOwnerError, is_wrong_last
from strata.gateway.v1.gateway_events_pb2 import RequestAdmitted
from strata.orchestrator.v1.orchestrator_events_pb2 import DecisionReleased, ResponseReleased

log = get_logger("answers")
_DIRECT_GET = f"$JS.API.DIRECT.GET.{RESPONSE.stream}"
# A decision has the fields of a response, and some more.
Told = ResponseReleased | DecisionReleased


class Answer:
    """What a client has been told so far, and how to tell it more."""

    def __init__(self, bus: Bus, request: RequestAdmitted, state_dir: Path, at: Subject = RESPONSE) -> None:
        """Assume that nothing was released; `load` looks, with the release keys of the state folder."""
        self._bus, self._state_dir, self._at = bus, state_dir, at
        self._request_id, self._trace_id, self._tenant = request.request_id, request.trace_id, request.caller.tenant
        self._subject = at.at(tenant=self._tenant, request_id=self._request_id)
        self._last = 0
        self.sequence = 0
        self.released_text = ""
        self.final: Told | None = None

    async def load(self) -> None:
        """Read the windows that the stream has, in order; what guardrail did not sign for this place is none."""
        keys = load_release_keys(self._state_dir)
        self._last, self.sequence, self.released_text, self.final = 0, 0, "", None
        while (found := await self._next(self._last + 1)) is not None:
            self._last = found[0]
            if found[1] is not None and self._is_ours(found[1], keys):
                self._account(found[1])

    async def publish(self, message: Told) -> None:
        """Add a window or an error; raise StaleOwnerError when another owner has added one since we looked."""
        place = f"decision/{self.sequence}" if self._at is DECISION else str(self.sequence)
        event_id = f"{self._tenant}/{self._request_id}/{place}"
        headers = cloud_event(self._bus.name, self._at, event_id=event_id, about=self._request_id)
        headers[EXPECTED_LAST] = str(self._last)
        body, timeout = encode(self._at, message), self._bus.timeout_seconds
        try:
            ack = await self._bus.js.publish(self._subject, body, stream=RESPONSE.stream, headers=headers, timeout=timeout)
        except APIError as error:
            if is_wrong_last(error):
                raise StaleOwnerError(event_id) from error
            raise UnavailableError(f"the bus refused {event_id!r}: {error}") from error
        except (TimeoutError, NatsError, NoStreamResponseError) as error:
            raise UnavailableError(f"the bus did not take {event_id!r}: {error!r}") from error
        if ack.duplicate:
            raise StaleOwnerError(event_id)
        telemetry.PUBLISHED.labels(subject=self._at.pattern).inc()
        self._last = ack.seq
        self._account(message)

    def _account(self, message: Told) -> None:
        self.sequence += 1
        self.released_text += message.release.text
        if message.HasField("completion") or message.error_code:
            self.final = message

    def _is_ours(self, message: Told, keys: dict[str, Ed25519PublicKey]) -> bool:
        """Return whether a client takes a message as the next part of this answer."""
        if message.error_code and not message.HasField("release"):
            return True
        try:
            claims = verify(keys, message.release, request_id=self._request_id, trace_id=self._trace_id, tenant=self._tenant)
            verify_completion(claims, json.loads(to_json_bytes(message.completion)) if message.HasField("completion") else None)
        except ReleaseInvalidError as error:
            log.warning("window_ignored", request_id=self._request_id, reason=str(error))
            return False
        in_place = claims.sequence == self.sequence and claims.reviewed == (self._at is DECISION)
        return in_place and claims.final == message.HasField("completion")

    async def _next(self, sequence: int) -> tuple[int, Told | None] | None:
        """Return the first window at or after a place in the stream, with its place; None for a body that is no response."""
        request = json.dumps({"seq": sequence, "next_by_subj": self._subject}).encode()
        try:
            reply = await self._bus.client.request(_DIRECT_GET, request, timeout=self._bus.timeout_seconds)
        except (TimeoutError, NatsError) as error:
            raise UnavailableError(f"the windows of {self._request_id!r} cannot be read: {error!r}") from error
        headers = reply.headers or {}
        if headers.get("Status"):
            return None
        try:
            return int(headers["Nats-Sequence"]), decode(self._at, reply.data)
        except InvalidArgumentError:
            return int(headers["Nats-Sequence"]), None
