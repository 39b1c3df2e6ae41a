"""What a client may say of a document, as JSON or as fields of a form, and whose document it may be."""

import datetime as dt
import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from contracts.subjects import InvalidTokenError, token
from gateway.refusals import RefusedError
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.ingestor.v1.knowledge_service_pb2 import Document

WRITE_ALL = "knowledge:write_all"
# A role that may write for all writes a document of all tenants under this name.
EVERYBODY = "*"


def _in_utc(moment: dt.datetime) -> dt.datetime:
    try:
        return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except OverflowError as error:
        # Near the first or the last year a zone leads out of the calendar.
        raise ValueError(f"{moment.isoformat()} is no time in UTC") from error


Moment = Annotated[dt.datetime, AfterValidator(_in_utc)]
Name = Annotated[str, Field(max_length=500)]


class DocumentBody(BaseModel):
    """The fields of a document; what is empty is taken from its file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Name = ""
    title: Annotated[str, Field(max_length=2000)] = ""
    # A bound also has pydantic refuse half a character, which JSON can write and no other encoding has.
    text: Annotated[str, Field(max_length=2**31)] = ""
    version: Name = ""
    effective_from: Moment | None = None
    expires_at: Moment | None = None
    labels: tuple[Name, ...] = Field(default=(), max_length=32)
    metadata: dict[Name, Annotated[str, Field(max_length=2000)]] = Field(default_factory=dict, max_length=64)
    source: Annotated[str, Field(max_length=2000)] = ""
    licence: Name = ""
    tenant: Name = ""

    def to_message(self, caller: Caller) -> Document:
        """Return the document for ingestor; raise RefusedError for another tenant's."""
        message = Document(
            id=self.id,
            title=self.title,
            text=self.text,
            version=self.version,
            source=self.source,
            licence=self.licence,
            labels=self.labels,
            metadata=self.metadata,
            tenant=owner(caller, self.tenant),
        )
        for name, moment in (("effective_from", self.effective_from), ("expires_at", self.expires_at)):
            if moment is not None:
                getattr(message, name).FromDatetime(moment)
        return message


def owner(caller: Caller, tenant: str) -> str:
    """Return whose document is meant, empty for all tenants; raise RefusedError for one that the caller may not write."""
    if not tenant or tenant == caller.tenant:
        return caller.tenant
    if WRITE_ALL not in caller.permissions:
        raise RefusedError("permission_denied", "The role writes documents of its own tenant alone.", param="tenant")
    if tenant == EVERYBODY:
        return ""
    try:
        return token(tenant, what="tenant")
    except InvalidTokenError as error:
        raise RefusedError("invalid_request", str(error), param="tenant") from error


def from_json(raw: bytes) -> DocumentBody:
    """Return the fields of a JSON body; raise RefusedError that names the first one that is wrong."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RefusedError("invalid_json") from error
    body = _checked(value)
    for name in ("id", "title", "text"):
        if not getattr(body, name).strip():
            raise RefusedError("invalid_request", f"Field '{name}' is missing.", param=name)
    return body


def from_form(fields: dict[str, list[str]]) -> DocumentBody:
    """Return the fields of a form: `labels` may be repeated, `metadata` is a JSON object."""
    value: dict[str, Any] = {}
    for name, found in fields.items():
        if name == "text":
            raise RefusedError("invalid_request", "The text of an upload is its file.", param="text")
        if name == "labels":
            value[name] = [label.strip() for part in found for label in part.split(",") if label.strip()]
        elif name == "metadata":
            try:
                value[name] = json.loads(found[0])
            except (ValueError, RecursionError) as error:
                raise RefusedError("invalid_request", "Field 'metadata' must be a JSON object of texts.", param=name) from error
        elif found != [""]:
            value[name] = found[0]
            if len(found) > 1:
                raise RefusedError("invalid_request", "The field is there twice.", param=name[:64])
    return _checked(value)


def _checked(value: object) -> DocumentBody:
    try:
        return DocumentBody.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])[:64]
        raise RefusedError("invalid_request", f"{place}: {first['msg']}" if place else str(first["msg"]), param=place or None) from error
