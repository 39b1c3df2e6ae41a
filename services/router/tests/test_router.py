"""Routing over real gRPC with the weights and policies that ship."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from chassis import process
from chassis.errors import InvalidArgumentError, NotFoundError
from chassis.rpc import call, channel
from router.main import create_router, start
from router.routing import Router
from router.settings import Settings
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.router.v1.router_service_pb2 import RouteRequest, RouteResponse
from strata.router.v1.router_service_pb2_grpc import RouterServiceStub
from testkit.nats import NatsServer

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def router() -> Router:
    """The router with the repository's own weights and policies."""
    return create_router(Settings(STRATA_HOME=ROOT))


@pytest_asyncio.fixture
async def stub(bus: NatsServer, router: Router) -> AsyncIterator[RouterServiceStub]:
    """The running service, called with orchestrator's certificate."""
    settings = Settings(STRATA_HOME=ROOT)
    async with process.running("router", settings, partial(start, router)), channel(settings, "orchestrator", "router") as open_channel:
        yield RouterServiceStub(open_channel)


async def route(stub: RouterServiceStub, text: str, domain: str = "", role: str = "patient_portal", **fields: object) -> RouteResponse:
    """Route one message."""
    context = fields.pop("context", None)
    request = RouteRequest(request_id="r1", caller=Caller(tenant="clinic", role=role), text=text, domain=domain, **fields)
    if context:
        request.context.update(context)
    response: RouteResponse = await call(stub.Route, request, timeout=180)
    return response


async def test_intents_of_both_domains_are_recognised(stub: RouterServiceStub) -> None:
    """Clear messages get the intent that a person would name, with calibrated probabilities that sum to one."""
    for text, domain, intent in (
        ("What are the opening hours of the pharmacy on Saturday?", "healthcare", "administrative"),
        ("Can I take ibuprofen together with my blood thinner?", "healthcare", "medication"),
        ("Where is my order #W4817420?", "retail", "order"),
        ("How many loyalty points do I have?", "retail", "loyalty"),
        ("Do you have hiking boots in stock at store S-0104?", "retail", "stock"),
    ):
        found = await route(stub, text, domain)
        assert found.intent == intent, text
        assert sum(score.probability for score in found.intents) == pytest.approx(1, abs=1e-3)
        assert sum(score.probability for score in found.classes) == pytest.approx(1, abs=1e-3)
        assert 0 < found.intent_confidence <= 1


async def test_an_urgent_message_is_urgent(stub: RouterServiceStub) -> None:
    """The intent classifier's own threshold for `urgent` is used, which is far below the other labels'."""
    found = await route(stub, "My father has crushing chest pain and cannot breathe, his lips are blue", "healthcare")
    assert found.intent == "urgent"


async def test_a_simple_lookup_gets_the_shortest_deadline_and_the_smallest_tier(stub: RouterServiceStub) -> None:
    """An administrative message is not served by a reasoning model."""
    found = await route(stub, "When is my next appointment?", "healthcare")
    assert (found.deadline_class, found.tier) == ("administrative", "small")


async def test_a_vip_gets_the_adapter_that_policy_names(stub: RouterServiceStub) -> None:
    """An override names its id, and sets adapter and tier."""
    found = await route(stub, "Where is my order #W4817420?", "retail", context={"vip": True})
    assert list(found.policy_ids) == ["vip-customer"]
    assert (found.adapter, found.tier) == ("patient-answer@v1", "mid")
    plain = await route(stub, "Where is my order #W4817420?", "retail")
    assert not plain.policy_ids
    assert plain.adapter == ""


async def test_what_a_client_names_wins_over_the_default_but_not_over_policy(stub: RouterServiceStub) -> None:
    """A client's tier and adapter stay, unless policy sets others."""
    named = {"tier": "large", "adapter": "retail-answer@v1"}
    found = await route(stub, "Where is my order #W4817420?", "retail", **named)
    assert (found.tier, found.adapter) == ("large", "retail-answer@v1")
    forced = await route(stub, "Where is my order #W4817420?", "retail", context={"vip": True}, **named)
    assert (forced.tier, forced.adapter) == ("mid", "patient-answer@v1")


async def test_without_a_domain_there_is_a_class_and_no_intent(stub: RouterServiceStub) -> None:
    """Plain chat is classified; versions name the weights."""
    found = await route(
        stub, "A train leaves at 60 km/h and another at 80 km/h an hour later. When does the second catch the first? Show your reasoning."
    )
    assert found.intent == ""
    assert found.request_class == "high_ambiguity_reasoning"
    assert (found.tier, found.deadline_class) == ("reasoning", "complex")
    assert set(found.versions) == {"encoder", "request_class"}


async def test_what_cannot_be_routed_is_refused(stub: RouterServiceStub) -> None:
    """An empty text, an unknown domain and an unknown tier are clear errors."""
    with pytest.raises(InvalidArgumentError, match="text is empty"):
        await route(stub, "  ")
    with pytest.raises(NotFoundError, match="unknown domain 'moon'"):
        await route(stub, "hello", "moon")
    with pytest.raises(InvalidArgumentError, match="unknown tier 'huge'"):
        await route(stub, "hello", tier="huge")


async def test_many_at_once(stub: RouterServiceStub) -> None:
    """Concurrent requests get the same answers as single ones."""
    texts = ["Where is my order #W4817420?", "How many loyalty points do I have?"] * 8
    found = await asyncio.gather(*(route(stub, text, "retail") for text in texts))
    assert [response.intent for response in found] == ["order", "loyalty"] * 8


def test_a_bad_policy_file_ends_the_start_with_one_line(tmp_path: Path) -> None:
    """The process names the file and leaves with an error, without a traceback."""
    shutil.copytree(ROOT / "domains", tmp_path / "domains", ignore=shutil.ignore_patterns("documents", "sources", "tests"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "router").symlink_to(ROOT / "models" / "router")
    (tmp_path / "domains" / "retail" / "policy.yaml").write_text("version: '1'\noverrides: [{id: x, when: 'a ==', set: {tier: mid}}]\n")
    done = subprocess.run(
        [sys.executable, "-m", "router"],
        env={"STRATA_HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("router: ")
    assert "retail/policy.yaml: overrides.0" in last
    assert "Traceback" not in done.stderr
