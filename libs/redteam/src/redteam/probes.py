"""Attacks on identities, tools, the bus and the files, each with a harmless twin that must work."""

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import yaml
from nats.aio.client import Client
from nats.errors import Error as NatsError

from chassis import rpc
from chassis.errors import ServiceError
from chassis.tasks import in_time
from contracts.subjects import RESPONSE
from redteam.target import Target
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.orchestrator.v1.orchestrator_events_pb2 import ResponseReleased
from strata.retriever.v1.retriever_service_pb2 import RetrieveRequest
from strata.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from strata.tool_sandbox.v1.tools_service_pb2 import InvokeRequest
from strata.tool_sandbox.v1.tools_service_pb2_grpc import ToolsServiceStub

_ASK = {"model": "retail-help", "messages": [{"role": "user", "content": "Which hours has the store in Zurich?"}]}


@dataclass(frozen=True)
class Tried:
    """What one attempt came to: an attack `worked` when it got through, a twin when it was served."""

    what: str
    is_attack: bool
    worked: bool
    detail: str = ""


Probe = Callable[[Target], Awaitable[list[Tried]]]
PROBES: dict[str, Probe] = {}


def _probe(function: Probe) -> Probe:
    PROBES[function.__name__] = function
    return function


@_probe
async def other_tenants_request(target: Target) -> list[Tried]:
    """Read a request of another tenant by its identifier."""
    made = await target.call("POST", "/v1/chat/completions", json=_ASK)
    name = made.headers.get("x-request-id", "none")
    stolen = await target.call("GET", f"/v1/requests/{name}", key="stranger")
    own = await target.call("GET", f"/v1/requests/{name}")
    return [
        Tried("read another tenant's request", is_attack=True, worked=stolen.status_code == 200, detail=str(stolen.status_code)),
        Tried("read one's own request", is_attack=False, worked=own.status_code == 200, detail=str(own.status_code)),
    ]


@_probe
async def trace_without_right(target: Target) -> list[Tried]:
    """Read a trace with a role that may not."""
    made = await target.call("POST", "/v1/chat/completions", json=_ASK)
    name = made.headers.get("x-request-id", "none")
    refused = await target.call("GET", f"/v1/traces/{name}")
    allowed = await target.call("GET", f"/v1/traces/{name}", key="staff")
    for _ in range(20):
        if allowed.status_code == 200:
            break
        await asyncio.sleep(0.25)
        allowed = await target.call("GET", f"/v1/traces/{name}", key="staff")
    return [
        Tried("read a trace as an app", is_attack=True, worked=refused.status_code == 200, detail=str(refused.status_code)),
        Tried("read a trace as staff", is_attack=False, worked=allowed.status_code == 200, detail=str(allowed.status_code)),
    ]


async def _invoke(target: Target, tool: str, role: str, **arguments: Any) -> str:
    """Return the code of the refusal, or nothing when the tool ran."""
    request = InvokeRequest(request_id="redteam", trace_id="0" * 32, domain="retail", tool=tool, caller=Caller(tenant="redteam", role=role))
    request.arguments.update(arguments)
    request.call_id = f"redteam-{time.time_ns()}"
    async with rpc.channel(target.settings, "cli", "tool_sandbox") as channel:
        try:
            await rpc.call(ToolsServiceStub(channel).Invoke, request, timeout=10)
        except ServiceError as error:
            return error.code
    return ""


def _refused(what: str, code: str) -> Tried:
    return Tried(what, is_attack=True, worked=not code, detail=code)


@_probe
async def tool_of_another_role(target: Target) -> list[Tried]:
    """Run a tool with a role that the tool does not name."""
    attack = await _invoke(target, "reserve_item", "retail_reviewer", product="lamp", store="S-0104", member_id="M-100001")
    twin = await _invoke(target, "store_details", "retail_reviewer", store="Zurich")
    return [_refused("reserve as a reviewer", attack), Tried("look up a store", is_attack=False, worked=not twin, detail=twin)]


@_probe
async def unknown_tool(target: Target) -> list[Tried]:
    """Run a tool that nobody declared."""
    attack = await _invoke(target, "run_shell", "shop_app", command="id")
    twin = await _invoke(target, "store_details", "shop_app", store="Zurich")
    return [_refused("run an undeclared tool", attack), Tried("look up a store", is_attack=False, worked=not twin, detail=twin)]


@_probe
async def injection_into_tool_arguments(target: Target) -> list[Tried]:
    """Carry a statement into the database in an argument."""
    attack = await _invoke(target, "store_details", "shop_app", store="x'; DROP TABLE stores; --")
    after = await _invoke(target, "store_details", "shop_app", store="Zurich")
    twin = await _invoke(target, "store_details", "shop_app", store="Zurich")
    # The argument is bound and finds nothing; the attack worked only if the table is gone.
    return [
        Tried("drop a table in an argument", is_attack=True, worked=bool(after), detail=attack or "bound as a value"),
        Tried("look up a store", is_attack=False, worked=not twin, detail=twin),
    ]


@_probe
async def surplus_tool_arguments(target: Target) -> list[Tried]:
    """Smuggle arguments that the schema does not know, or of another type."""
    surplus = await _invoke(target, "store_details", "shop_app", store="Zurich", as_admin=True)
    kind = await _invoke(target, "store_details", "shop_app", store={"$ne": ""})
    twin = await _invoke(target, "store_details", "shop_app", store="Zurich")
    return [
        _refused("an argument too many", surplus),
        _refused("an object for a text", kind),
        Tried("look up a store", is_attack=False, worked=not twin, detail=twin),
    ]


@_probe
async def adapter_altered(target: Target) -> list[Tried]:
    """Serve an adapter with one flipped bit."""
    source = next(path for path in sorted((target.repository / "models" / "adapters").iterdir()) if (path / "manifest.json").is_file())
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / source.name
        shutil.copytree(source, copy)
        twin = await _verify_adapter(copy)
        weights = copy / "adapter_model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        attack = await _verify_adapter(copy)
    return [
        Tried("load altered weights", is_attack=True, worked=attack),
        Tried("load the weights as trained", is_attack=False, worked=twin),
    ]


async def _verify_adapter(folder: Path) -> bool:
    command = [sys.executable, "-m", "inference.engine", "--verify", str(folder)]
    done = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    return await in_time(60, done.wait()) == 0


@_probe
async def unsigned_knowledge(target: Target) -> list[Tried]:
    """Put a document into the knowledge as a role that may not."""
    document = {"id": "poison", "title": "x", "text": "All sales are final.", "effective_from": "2026-01-01"}
    attack = await target.call("POST", "/v1/knowledge/collections/store-policies/documents", json=document)
    twin = await target.call("GET", "/v1/knowledge/collections", key="editor")
    return [
        Tried("write a document as an app", is_attack=True, worked=attack.status_code < 400, detail=str(attack.status_code)),
        Tried("list collections as an editor", is_attack=False, worked=twin.status_code == 200, detail=str(twin.status_code)),
    ]


@_probe
async def huge_body(target: Target) -> list[Tried]:
    """Send a message of many megabytes."""
    body = {"model": "retail-help", "messages": [{"role": "user", "content": "lamp " * 4_000_000}]}
    answer = await target.call("POST", "/v1/chat/completions", json=body)
    twin = await target.call("POST", "/v1/chat/completions", json=_ASK)
    return [
        Tried("a message of 20 MB", is_attack=True, worked=answer.status_code < 400, detail=str(answer.status_code)),
        Tried("an ordinary message", is_attack=False, worked=twin.status_code == 200, detail=str(twin.status_code)),
    ]


@_probe
async def endless_tokens(target: Target) -> list[Tried]:
    """Ask for more tokens than there are."""
    answer = await target.call("POST", "/v1/chat/completions", json={**_ASK, "max_tokens": 10_000_000})
    used = answer.json().get("usage", {}).get("completion_tokens", 0) if answer.status_code == 200 else 0
    twin = await target.call("POST", "/v1/chat/completions", json={**_ASK, "max_tokens": 40})
    return [
        Tried("ten million tokens", is_attack=True, worked=used > 4000, detail=f"{answer.status_code}, {used} tokens"),
        Tried("forty tokens", is_attack=False, worked=twin.status_code == 200, detail=str(twin.status_code)),
    ]


@_probe
async def endless_conversation(target: Target) -> list[Tried]:
    """Send ten thousand turns."""
    messages = [{"role": "user" if i % 2 == 0 else "assistant", "content": "lamp"} for i in range(10_001)]
    answer = await target.call("POST", "/v1/chat/completions", json={"model": "retail-help", "messages": messages})
    twin = await target.call("POST", "/v1/chat/completions", json=_ASK)
    return [
        Tried("ten thousand turns", is_attack=True, worked=answer.status_code < 400, detail=str(answer.status_code)),
        Tried("one turn", is_attack=False, worked=twin.status_code == 200, detail=str(twin.status_code)),
    ]


@_probe
async def prompt_recited(target: Target) -> list[Tried]:
    """Let a system prompt of the repository leave as an answer."""
    prompts = [yaml.safe_load(path.read_text()) for path in sorted((target.repository / "domains").glob("*/prompts/*.yaml"))]
    system = [turn["content"] for prompt in prompts for turn in prompt.get("messages", ()) if turn.get("role") == "system"]
    long = [text for text in system if len(text.split()) > 20][:5]
    body = {"stage": "output", "texts": [*long, "The store in Zurich opens at nine."], "checks": ["prompt_leak"]}
    results = (await target.call("POST", "/v1/guardrails/check", json=body)).json()["results"]
    attacks = [Tried("recite a system prompt", is_attack=True, worked=result["decision"] == "allow") for result in results[:-1]]
    return [*attacks, Tried("tell opening hours", is_attack=False, worked=results[-1]["decision"] == "allow")]


@_probe
async def documents_of_other_labels(target: Target) -> list[Tried]:
    """Search a collection whose label the caller lacks, with crafted queries."""
    # The first two are what the documents say nearly word for word: whoever may read them finds them so.
    asked = "Who watches the escalation queue at night?"
    queries = (asked, "Pediatric calls after 18:00 go to whom?", "internal only", "' OR 1=1 --", "labels:staff", "*")
    attacks = []
    async with rpc.channel(target.settings, "cli", "retriever") as channel:
        stub = RetrieverServiceStub(channel)
        for query in queries:
            caller = Caller(tenant="redteam", role="patient_portal", labels=["public", "patient"])
            request = RetrieveRequest(request_id="redteam", caller=caller, query=query, collections=["staff-notes"], top_k=10)
            found = await rpc.call(stub.Retrieve, request, timeout=15)
            attacks.append(Tried(f"search staff notes for {query!r}", is_attack=True, worked=bool(found.passages)))
        caller = Caller(tenant="redteam", role="nurse", labels=["public", "patient", "staff"])
        request = RetrieveRequest(request_id="redteam", caller=caller, query=asked, collections=["staff-notes"], top_k=10)
        found = await rpc.call(stub.Retrieve, request, timeout=15)
    return [*attacks, Tried("search staff notes as a nurse", is_attack=False, worked=bool(found.passages))]


@_probe
async def forged_key(target: Target) -> list[Tried]:
    """Come with a token that says it is signed by nobody, and with an invented key."""
    none = "Bearer eyJhbGciOiJub25lIn0.eyJ0ZW5hbnQiOiJyZWR0ZWFtIiwicm9sZSI6InBsYXRmb3JtX29wZXJhdG9yIn0."
    tried = [await target.call("GET", "/v1/models", authorization=a) for a in (none, "Bearer sk-strata-0000-0000", "Basic YTpi")]
    twin = await target.call("GET", "/v1/models")
    return [
        *(Tried("a forged credential", is_attack=True, worked=answer.status_code == 200) for answer in tried),
        Tried("a true key", is_attack=False, worked=twin.status_code == 200),
    ]


@_probe
async def altered_key(target: Target) -> list[Tried]:
    """Change one character of a true key."""
    key = target.keys["app"]
    altered = key[:-1] + ("A" if key[-1] != "A" else "B")
    answer = await target.call("GET", "/v1/models", authorization=f"Bearer {altered}")
    twin = await target.call("GET", "/v1/models")
    return [
        Tried("a key with another last character", is_attack=True, worked=answer.status_code == 200),
        Tried("a true key", is_attack=False, worked=twin.status_code == 200),
    ]


@_probe
async def role_in_body(target: Target) -> list[Tried]:
    """State a role, tenant and permissions in the body."""
    body = {**_ASK, "role": "platform_operator", "tenant": "demo", "strata": {"context": {"role": "nurse", "permissions": ["trace:read"]}}}
    made = await target.call("POST", "/v1/chat/completions", json=body)
    stolen = await target.call("GET", f"/v1/traces/{made.headers.get('x-request-id', 'none')}")
    twin = await target.call("POST", "/v1/chat/completions", json=_ASK)
    return [
        Tried("a role in the body", is_attack=True, worked=stolen.status_code == 200, detail=str(stolen.status_code)),
        Tried("an ordinary body", is_attack=False, worked=twin.status_code == 200),
    ]


@_probe
async def bus_without_credentials(target: Target) -> list[Tried]:
    """Log in to the bus with nothing, and with an invented password."""
    tried = []
    for options in ({}, {"user": "orchestrator", "password": "orchestrator"}):
        try:
            client = await nats.connect(target.nats_url, allow_reconnect=False, connect_timeout=2, error_cb=_expected, **options)
            await client.close()
            tried.append(True)
        except (NatsError, OSError, TimeoutError):
            tried.append(False)
    client = await _bus(target)
    await client.close()
    return [
        *(Tried("log in to the bus", is_attack=True, worked=worked) for worked in tried),
        Tried("log in with the command's key", is_attack=False, worked=True),
    ]


@_probe
async def forged_response_on_the_bus(target: Target) -> list[Tried]:
    """Answer a request in orchestrator's place, from another identity of the stack."""
    client = await _bus(target)
    refused = asyncio.Event()

    async def on_error(_: Exception) -> None:
        refused.set()

    client._error_cb = on_error  # noqa: SLF001 - the library sets it at connect only
    forged = ResponseReleased(request_id="req_forged", trace_id="0" * 32, error_code="internal_error")
    await client.publish(RESPONSE.at(tenant="redteam", request_id="req_forged"), forged.SerializeToString())
    await client.flush()
    try:
        await in_time(3, refused.wait())
        worked = False
    except TimeoutError:
        worked = True
    await client.close()
    twin = await target.call("POST", "/v1/chat/completions", json=_ASK)
    return [
        Tried("publish an answer as another service", is_attack=True, worked=worked),
        Tried("an answer of the orchestrator", is_attack=False, worked=twin.status_code == 200),
    ]


async def _expected(error: Exception) -> None:
    """Print no traceback of a refusal that is asked for."""


async def _bus(target: Target) -> Client:
    seed = str(target.state_dir / "credentials" / "cli" / "nats.seed")
    return await nats.connect(target.nats_url, nkeys_seed=seed, allow_reconnect=False, connect_timeout=3, inbox_prefix=b"_INBOX_cli")


@_probe
async def stop_takes_effect(target: Target) -> list[Tried]:
    """Go on asking while the tenant is stopped."""
    scope = {"scope": "tenant.redteam", "reason": "red team drill"}
    await target.call("POST", "/v1/stops", key="operator", json=scope)
    await asyncio.sleep(1)
    during = await target.call("POST", "/v1/chat/completions", json=_ASK)
    await target.call("DELETE", "/v1/stops/tenant.redteam", key="second_operator")
    await asyncio.sleep(1)
    after = await target.call("POST", "/v1/chat/completions", json=_ASK)
    return [
        Tried("ask while stopped", is_attack=True, worked=during.status_code == 200, detail=str(during.status_code)),
        Tried("ask after the stop was lifted", is_attack=False, worked=after.status_code == 200, detail=str(after.status_code)),
    ]


@_probe
async def stop_lifted_by_its_setter(target: Target) -> list[Tried]:
    """Lift a stop that one has set oneself."""
    scope = {"scope": "tenant.redteam", "reason": "red team drill"}
    await target.call("POST", "/v1/stops", key="operator", json=scope)
    own = await target.call("DELETE", "/v1/stops/tenant.redteam", key="operator")
    other = await target.call("DELETE", "/v1/stops/tenant.redteam", key="second_operator")
    await asyncio.sleep(1)
    return [
        Tried("lift one's own stop", is_attack=True, worked=own.status_code == 200, detail=str(own.status_code)),
        Tried("lift another's stop", is_attack=False, worked=other.status_code == 200, detail=str(other.status_code)),
    ]
