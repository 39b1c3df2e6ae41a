"""`strata ask`: one question to a running stack."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape

from cli.place import Place, at

out, err = Console(soft_wrap=True), Console(stderr=True)
DEFAULT_STATE = Path(".strata")
_TIMEOUT = httpx.Timeout(120.0, connect=5.0)


class AskError(Exception):
    """The gateway refused or did not answer; the message is for a person."""

    def __init__(self, message: str, code: str, status: int) -> None:
        """Keep the stable code and the HTTP status."""
        super().__init__(message)
        self.code, self.status = code, status


def _raise_for(response: httpx.Response) -> None:
    if response.status_code < 400:
        return
    try:
        error = response.json()["error"]
        raise AskError(error["message"], error["code"], response.status_code)
    except (ValueError, KeyError, TypeError):
        raise AskError(response.text[:200], "invalid_response", response.status_code) from None


def complete(place: Place, key: str, body: dict[str, Any]) -> dict[str, Any]:
    """Post a request and return the whole completion; raise AskError when there is none."""
    headers = {"authorization": f"Bearer {key}"}
    response = httpx.post(f"{place.gateway_url}/v1/chat/completions", json=body, headers=headers, timeout=_TIMEOUT)
    _raise_for(response)
    result: dict[str, Any] = response.json()
    return result


def stream(place: Place, key: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Post a request and yield the chunks of its answer as they arrive."""
    headers = {"authorization": f"Bearer {key}"}
    request = {**body, "stream": True, "stream_options": {"include_usage": True}}
    with httpx.stream("POST", f"{place.gateway_url}/v1/chat/completions", json=request, headers=headers, timeout=_TIMEOUT) as response:
        if response.status_code >= 400:
            response.read()
        _raise_for(response)
        for line in response.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk: dict[str, Any] = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise AskError(chunk["error"]["message"], chunk["error"]["code"], 200)
            yield chunk


def show_origin(extra: dict[str, Any], *, citations: bool = True) -> None:
    """Print what an answer rests on and how it came about."""
    for citation in extra.get("citations") or [] if citations else []:
        version = f", version {citation['version']}" if citation.get("version") else ""
        date = citation.get("date") or "no date"
        out.print(f"  [dim]\\[{citation['id']}] {citation['title']}{version}, {date}[/dim]", highlight=False)
    way = [extra.get(name) for name in ("status", "request_class", "intent", "tier", "adapter")]
    way.append(f"trace {extra.get('trace_id')}")
    out.print(f"  [dim]{' · '.join(str(part) for part in way if part)}[/dim]", highlight=False)


def ask(
    question: str,
    key: Annotated[str, typer.Option(envvar="STRATA_API_KEY", help="API key, as `strata keys create` printed it.")],
    model: Annotated[str, typer.Option(help="auto, a workflow, a tier or an adapter.")] = "auto",
    context: Annotated[str, typer.Option(help="Facts for policy and tools, as a JSON object.")] = "{}",
    state: Annotated[Path, typer.Option("--state", envvar="STRATA_STATE_DIR", help="Folder of all state of the stack.")] = DEFAULT_STATE,
    *,
    streamed: Annotated[bool, typer.Option("--stream", help="Print the answer as it is released.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the completion as JSON.")] = False,
) -> None:
    """Ask a question and print the answer with what it rests on."""
    place = at(state)
    try:
        facts = json.loads(context)
    except ValueError as error:
        raise typer.BadParameter(f"--context is not JSON: {error}") from error
    body = {"model": model, "messages": [{"role": "user", "content": question}], "strata": {"context": facts}}
    try:
        if streamed and not as_json:
            _print_stream(place, key, body)
            return
        completion = complete(place, key, body)
    except (AskError, httpx.HTTPError) as error:
        code = getattr(error, "code", "unreachable")
        err.print(f"[red]strata:[/red] {code}: {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    if as_json:
        sys.stdout.write(json.dumps(completion) + "\n")
        return
    out.print(completion["choices"][0]["message"]["content"], highlight=False, markup=False)
    show_origin(completion.get("strata") or {})


def _print_stream(place: Place, key: str, body: dict[str, Any]) -> None:
    extra: dict[str, Any] = {}
    for chunk in stream(place, key, body):
        for choice in chunk.get("choices") or []:
            out.print(choice["delta"].get("content") or "", end="", highlight=False, markup=False)
        extra = chunk.get("strata") or extra
    out.print()
    show_origin(extra)
