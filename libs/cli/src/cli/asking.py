"""`strata ask`: one question to a running stack."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from cli.connection import GatewayError, ask_gateway, authorization, raise_refusal
from cli.options import DEFAULT_STATE, AsJson, State, print_json
from cli.place import Place, at

out = Console(soft_wrap=True)
_TIMEOUT = httpx.Timeout(120.0, connect=5.0)


def complete(place: Place, key: str, body: dict[str, Any]) -> dict[str, Any]:
    """Post a request and return the whole completion; raise GatewayError when there is none."""
    return ask_gateway(place, key, "POST", "chat/completions", timeout=_TIMEOUT, json=body)


def stream(place: Place, key: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Post a request and yield the chunks of its answer as they arrive."""
    request = {**body, "stream": True, "stream_options": {"include_usage": True}}
    with httpx.stream(
        "POST", f"{place.gateway_url}/v1/chat/completions", json=request, headers=authorization(key), timeout=_TIMEOUT
    ) as response:
        if response.status_code >= 400:
            response.read()
        raise_refusal(response)
        for line in response.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk: dict[str, Any] = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise GatewayError(chunk["error"]["message"], chunk["error"]["code"], 200)
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
    state: State = DEFAULT_STATE,
    *,
    streamed: Annotated[bool, typer.Option("--stream", help="Print the answer as it is released.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a question and print the answer with what it rests on."""
    place = at(state)
    try:
        facts = json.loads(context)
    except ValueError as error:
        raise typer.BadParameter(f"--context is not JSON: {error}") from error
    body = {"model": model, "messages": [{"role": "user", "content": question}], "strata": {"context": facts}}
    if streamed and not as_json:
        _print_stream(place, key, body)
        return
    completion = complete(place, key, body)
    if as_json:
        print_json(completion)
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
