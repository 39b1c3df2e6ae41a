"""The body of a chat completion as clients send it; pydantic ends here."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gateway.refusals import RefusedError, require_own
from gateway.settings import Settings

# A nested level of JSON is three of protobuf, whose parsers stop at a hundred.
_MAX_DEPTH = 16


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what JSON or protobuf cannot carry onwards."""
    json.dumps(value, allow_nan=False)
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        level = [item for v in level for item in (v.values() if isinstance(v, dict) else v) if isinstance(item, (dict, list))]
        if not level:
            return value
    raise ValueError(f"more than {_MAX_DEPTH} levels deep")


PlainObject = Annotated[dict[str, Any], AfterValidator(_plain)]


class _Lenient(BaseModel):
    """Unknown fields are ignored, as the ecosystem does."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class TextPart(_Lenient):
    """A piece of a message; only text is understood."""

    type: Literal["text"]
    text: str


class FunctionCall(_Lenient):
    """Name and arguments of a call."""

    name: str = Field(min_length=1, max_length=128)
    arguments: str = "{}"


class CallMade(_Lenient):
    """A call that an assistant turn made."""

    id: str = Field(min_length=1, max_length=128)
    function: FunctionCall


class Message(_Lenient):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = Field(default=None, max_length=128)
    tool_call_id: str | None = Field(default=None, max_length=128)
    tool_calls: list[CallMade] | None = None

    @property
    def text(self) -> str:
        """The turn's text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class FunctionSpec(_Lenient):
    """A function of the client."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    description: str = ""
    parameters: PlainObject = Field(default_factory=dict)


class Tool(_Lenient):
    """A tool of the client."""

    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(_Lenient):
    """The name of a function."""

    name: str


class NamedChoice(_Lenient):
    """The demand that one function be called."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(_Lenient):
    """A named schema."""

    name: str = ""
    schema_: PlainObject = Field(alias="schema")


class ResponseFormat(_Lenient):
    """The form that the answer must have."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class StreamOptions(_Lenient):
    """What a stream carries beside text."""

    include_usage: bool = False


# A place in the source of a collection, such as an LSN.
Place = Annotated[int, Field(ge=0, lt=2**63)]


class Extension(_Lenient):
    """What only Strata understands."""

    session_id: str = Field(default="", max_length=128)
    workflow: str = Field(default="", max_length=128)
    as_of: AwareDatetime | None = None
    filters: dict[str, str] = Field(default_factory=dict, max_length=32)
    context: PlainObject = Field(default_factory=dict)
    at_least: dict[str, Place] = Field(default_factory=dict, max_length=32)
    positions: dict[str, Place] = Field(default_factory=dict, max_length=32)
    accept_stale: bool = False


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class ChatBody(_Lenient):
    """Body of POST /v1/chat/completions."""

    model: str = Field(default="auto", min_length=1, max_length=128)
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = 1
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[str] | None, BeforeValidator(_as_list), Field(max_length=4)] = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    response_format: ResponseFormat | None = None
    strata: Extension = Field(default_factory=Extension)

    @property
    def token_limit(self) -> int:
        """Most tokens to generate; 0 leaves the choice to the workflow."""
        return self.max_completion_tokens or self.max_tokens or 0


def parse(body: bytes, settings: Settings) -> ChatBody:
    """Return a body of JSON text; raise RefusedError that names the field."""
    try:
        return _within(ChatBody.model_validate_json(body), settings)
    except ValidationError as error:
        raise _refusal(error) from error


def from_object(body: dict[str, Any], settings: Settings) -> ChatBody:
    """Return a body of plain objects; raise RefusedError that names the field."""
    try:
        return _within(ChatBody.model_validate(body), settings)
    except ValidationError as error:
        raise _refusal(error) from error


def _within(body: ChatBody, settings: Settings) -> ChatBody:
    if len(body.messages) > settings.max_messages:
        raise RefusedError("invalid_request", f"More than {settings.max_messages} messages.", param="messages")
    if body.tools and len(body.tools) > settings.max_tools:
        raise RefusedError("invalid_request", f"More than {settings.max_tools} tools.", param="tools")
    for number, tool in enumerate(body.tools or ()):
        require_own(tool.function.parameters, param=f"tools.{number}.function.parameters")
    form = body.response_format
    if form and form.type == "json_schema" and form.json_schema is None:
        raise RefusedError("invalid_request", "response_format.json_schema: Field required.", param="response_format.json_schema")
    if form and form.json_schema is not None:
        require_own(form.json_schema.schema_, param="response_format.json_schema.schema")
    return body


def _refusal(error: ValidationError) -> RefusedError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return RefusedError("invalid_json", f"{first['msg'].removeprefix('Invalid JSON: ').capitalize()}.")
    where = ".".join(str(part) for part in first["loc"]) or "body"
    return RefusedError("invalid_request", f"{where}: {first['msg']}.", param=where)
