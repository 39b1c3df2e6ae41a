"""How the gateway says no: one error with a stable code, and OpenAI's envelope for it."""

import json
import math

from chassis import json_schemas
from chassis.errors import ServiceError
from contracts.errors import ErrorCode, known


class RefusedError(ServiceError):
    """A request is refused; `detail` is about the caller's own input and safe to show."""

    def __init__(
        self, code: str, detail: str = "", *, param: str | None = None, reason: str | None = None, retry_after_seconds: float | None = None
    ) -> None:
        """Keep what the envelope and the headers need."""
        super().__init__(detail or code, code=code)
        self.detail, self.param, self.reason, self.retry_after_seconds = detail, param, reason, retry_after_seconds


def as_refusal(error: ServiceError) -> RefusedError:
    """Return any service's error as one that shows nothing but the catalogue's text."""
    return error if isinstance(error, RefusedError) else RefusedError(error.code)


def require_own(schema: object, *, param: str) -> None:
    """Refuse a client's JSON Schema that is too large or refers to anything outside of itself."""
    try:
        json_schemas.require_own(schema)
    except json_schemas.SchemaRefusedError as error:
        raise RefusedError(error.code, f"{error}.", param=param) from error


def envelope(error: RefusedError) -> bytes:
    """Return OpenAI's error object as JSON."""
    entry = known(error.code)
    message = f"{entry.message} {error.detail}" if error.detail else entry.message
    body: dict[str, object] = {"message": message, "type": entry.type, "param": error.param, "code": entry.code}
    if error.reason:
        body["reason"] = error.reason
    return json.dumps({"error": body}, separators=(",", ":")).encode()


def headers(error: RefusedError) -> list[tuple[bytes, bytes]]:
    """Return Retry-After where a repeat may help."""
    entry: ErrorCode = known(error.code)
    if entry.http_status not in (429, 503):
        return []
    seconds = 1.0 if error.retry_after_seconds is None else max(error.retry_after_seconds, 0.001)
    return [(b"retry-after", str(math.ceil(seconds)).encode()), (b"retry-after-ms", str(math.ceil(seconds * 1000)).encode())]
