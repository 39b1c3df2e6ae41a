"""The connection to OpenSearch: every request has a deadline, and every failure is one of ours."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from opensearchpy import OpenSearch, Transport
from opensearchpy.exceptions import ConnectionError as NoConnectionError
from opensearchpy.exceptions import OpenSearchException, SerializationError, SSLError, TransportError
from opensearchpy.serializer import JSONSerializer
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from chassis.errors import FailedPreconditionError, InternalError, InvalidArgumentError, ServiceError, UnavailableError

_BUSY = {429, 502, 503, 504}
_REFUSED = {401, 403}
MISSING = 404
CONFLICT = 409


class NotThereError(UnavailableError):
    """What the request names is not there, or not any more."""


class TooManyWordsError(InvalidArgumentError):
    """The query has more words than the engine takes at once."""


class OpenSearchSettings(BaseModel):
    """Where OpenSearch is and as whom it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(default="https://127.0.0.1:9200", description="URL of the cluster.")
    ca_file: Path | None = Field(default=None, description="Certificate authority of the cluster, PEM; empty takes the system's.")
    user: str = Field(default="", description="User; empty asks without one.")
    password_file: Path | None = Field(default=None, description="File whose first line is the user's password.")
    search_seconds: PositiveFloat = Field(default=5.0, description="Longest wait for a search.")
    write_seconds: PositiveFloat = Field(default=30.0, description="Longest wait for one bulk of writes or one page of a listing.")
    connections: PositiveInt = Field(default=16, description="Connections kept open; as many requests run at once.")


class _Json(JSONSerializer):
    """JSON as fast as it gets; integers of 64 bits stay exact."""

    def dumps(self, data: Any) -> Any:
        return data if isinstance(data, str | bytes) else orjson.dumps(data).decode()

    def loads(self, s: str) -> Any:
        try:
            return orjson.loads(s)
        except orjson.JSONDecodeError as error:
            raise SerializationError(s, error) from error


class Connection:
    """One pool of connections under one user; safe to use from several threads."""

    def __init__(self, settings: OpenSearchSettings) -> None:
        """Connect when first asked; raise FailedPreconditionError when a file that the settings name cannot be read."""
        self.settings = settings
        options: dict[str, Any] = {"timeout": settings.search_seconds, "pool_maxsize": settings.connections, "serializer": _Json()}
        if settings.user:
            options["http_auth"] = (settings.user, _password(settings))
        if settings.url.startswith("https"):
            if settings.ca_file is not None and not settings.ca_file.is_file():
                raise FailedPreconditionError(f"OpenSearch: there is no file {str(settings.ca_file)!r} with its certificate authority")
            options |= {"ca_certs": str(settings.ca_file) if settings.ca_file else None, "verify_certs": True}
        # A connection that the other side closed is found out by using it, so one repeat is normal.
        client = OpenSearch(settings.url, max_retries=1, retry_on_timeout=False, retry_on_status=(), **options)
        self._transport: Transport = client.transport
        # A failure is raised, and logged by whoever handles it; the client would add a traceback of its own to each.
        logging.getLogger("opensearch").setLevel(logging.CRITICAL)

    def call(self, method: str, path: str, body: Any = None, *, seconds: float | None = None, **params: Any) -> Any:
        """Return the answer to one request.

        Raises UnavailableError when OpenSearch is down, slow or busy, NotThereError (one of them) for a missing index,
        FailedPreconditionError when it refuses the user, InvalidArgumentError when it refuses the content.
        """
        query = {name: str(value).lower() if isinstance(value, bool) else value for name, value in params.items()}
        query["request_timeout"] = seconds or self.settings.search_seconds
        try:
            return self._transport.perform_request(method, path, params=query, body=body)
        except OpenSearchException as error:
            raise failure(error, self.settings) from error

    def search(self, target: str, body: dict[str, Any], *, seconds: float | None = None) -> Any:
        """Return the answer to a search of all shards; raise UnavailableError rather than leave a shard out."""
        limit = seconds or self.settings.search_seconds
        params = {"allow_partial_search_results": False, "cancel_after_time_interval": f"{int(limit * 1000)}ms"}
        path = f"/{target}/_search" if target else "/_search"
        return self.call("POST", path, body, seconds=limit, **params)

    def searches(self, target: str, bodies: Sequence[dict[str, Any]]) -> list[Any]:
        """Return the answers to searches that run at once, by one request; raise as `search` does when one of them fails."""
        limit = self.settings.search_seconds
        header = {
            "index": target.split(","),
            "allow_partial_search_results": False,
            "cancel_after_time_interval": f"{int(limit * 1000)}ms",
        }
        lines = b"".join(orjson.dumps(part) + b"\n" for body in bodies for part in (header, body))
        answers: list[Any] = self.call("POST", "/_msearch", lines, seconds=limit)["responses"]
        for answer in answers:
            if "error" in answer:
                raise _refusal(int(answer["status"]), reasons(answer["error"])[:500], self.settings.user)
        return answers

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


def _password(settings: OpenSearchSettings) -> str:
    if settings.password_file is None:
        raise FailedPreconditionError(f"OpenSearch: user {settings.user!r} has no password file")
    try:
        return settings.password_file.read_text().strip()
    except OSError as error:
        raise FailedPreconditionError(f"OpenSearch: cannot read the password of {settings.user!r}: {error}") from error


def failure(error: OpenSearchException, settings: OpenSearchSettings) -> ServiceError:
    """Return our error for one of the client's."""
    if isinstance(error, SSLError):
        return FailedPreconditionError(
            f"OpenSearch at {settings.url} has a certificate that the authority file does not know: {error.error}"
        )
    if isinstance(error, NoConnectionError):
        return UnavailableError(f"OpenSearch at {settings.url} does not answer: {error.error}")
    if isinstance(error, TransportError) and isinstance(error.status_code, int):
        return _refusal(error.status_code, f"{error.error}: {reasons(error.info)}"[:500], settings.user)
    return InternalError(f"OpenSearch: {error}")


def _refusal(status: int, reason: str, user: str) -> ServiceError:
    if status in _BUSY:
        return UnavailableError(f"OpenSearch is busy: {reason}")
    if status in _REFUSED:
        return FailedPreconditionError(f"OpenSearch refuses user {user!r} ({status}); see `strata knowledge init`: {reason}")
    if status == MISSING:
        return NotThereError(f"OpenSearch: {reason}")
    if "too_many" in reason and "clauses" in reason:
        return TooManyWordsError(reason)
    return InvalidArgumentError(f"OpenSearch refuses the request: {reason}")


def reasons(info: Any) -> str:
    """Return every reason in an answer that tells of an error, the innermost included."""
    found: list[str] = []

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("reason"), str):
                found.append(f"{part.get('type', '')} {part['reason']}".strip())
            for value in part.values():
                walk(value)
        elif isinstance(part, list):
            for value in part:
                walk(value)

    walk(info)
    return "; ".join(dict.fromkeys(found)) or str(info)
