"""/v1/moderations as the official client calls it, and /v1/guardrails."""

import asyncio

import pytest
import pytest_asyncio
import scripted

from chassis.rpc import rpc_server
from strata.guardrail.v1 import guardrail_service_pb2 as pb
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceServicer, add_GuardrailServiceServicer_to_server


class Guardrail(GuardrailServiceServicer):
    """Holds every text with `hate` in it for hate."""

    async def Check(self, request: pb.CheckRequest, context: object) -> pb.CheckResponse:  # noqa: N802 - grpc's name
        """Return a verdict for each text."""
        return pb.CheckResponse(results=[self._one(text) for text in request.texts])

    def _one(self, text: str) -> pb.TextVerdict:
        bad = "hate" in text
        verdict = pb.Verdict(decision=pb.DECISION_BLOCK if bad else pb.DECISION_ALLOW, code="unsafe_content" if bad else "")
        if "broken" in text:
            verdict.checks.append(pb.CheckResult(name="safety", error="failed with ValueError"))
        return pb.TextVerdict(
            verdict=verdict, categories={"hate": 0.9 if bad else 0.1}, flagged_categories=["hate"] if bad else [], redacted=text
        )

    async def EraseSession(self, request: pb.EraseSessionRequest, context: object) -> pb.EraseSessionResponse:  # noqa: N802 - grpc's name
        """Know one session."""
        return pb.EraseSessionResponse(erased=request.session_id == "visit 7")

    async def ListChecks(self, request: object, context: object) -> pb.ListChecksResponse:  # noqa: N802 - grpc's name
        """Return one card."""
        return pb.ListChecksResponse(cards=[pb.Card(name="safety", stage=pb.STAGE_INPUT, measured={"auprc": "as the card says"})])


@pytest_asyncio.fixture
async def guardrail():
    """Run the scripted guardrail."""
    async with rpc_server(scripted.OtherSettings(), "guardrail", lambda s: add_GuardrailServiceServicer_to_server(Guardrail(), s)):
        yield


async def test_the_official_client_reads_moderations(stack, guardrail) -> None:
    """One text, several texts and parts give results with every category of OpenAI, and the call is on record without its text."""
    client = stack.openai()
    one = await client.moderations.create(input="I hate you")
    assert (one.results[0].flagged, one.results[0].categories.hate, one.results[0].categories.self_harm) == (True, True, False)
    assert one.results[0].category_scores.hate == pytest.approx(0.9)
    two = await client.moderations.create(input=["hello", "hate"], model="omni-moderation-latest")
    assert [result.flagged for result in two.results] == [False, True]
    assert len((await client.moderations.create(input=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])).results) == 1
    for _ in range(3600):
        if records := await scripted.records(stack.admin, "check"):
            break
        await asyncio.sleep(0.05)
    assert "hate you" not in str(records)
    assert list(records[0].details["decisions"]) == ["block"]


async def test_a_check_that_failed_is_an_error_and_no_verdict(stack, guardrail) -> None:
    """Nobody is told that a text was flagged because a check broke."""
    async with stack.http() as http:
        answer = await http.post("/v1/moderations", json={"input": ["fine", "broken"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "check_failed")


async def test_a_session_is_forgotten_on_demand(stack, guardrail) -> None:
    """What is kept of a session goes once, on record without its name; what is not there is not found."""
    async with stack.http() as http:
        gone = await http.delete("/v1/sessions/visit%207")
        assert (gone.status_code, gone.json()["deleted"]) == (200, True)
        assert (await http.delete("/v1/sessions/other")).status_code == 404
        assert (await http.get("/v1/sessions/other")).status_code == 404
    for _ in range(3600):
        if len(records := await scripted.records(stack.admin, "session_erased")) > 1:
            break
        await asyncio.sleep(0.05)
    assert sorted(record.outcome for record in records) == ["failed", "succeeded"]
    assert "visit" not in str(records)


async def test_any_stage_can_be_checked_and_checks_have_cards(stack, guardrail) -> None:
    """The answer says decision, code, categories and the redacted text; the cards are listed."""
    async with stack.http() as http:
        body = {"stage": "tool", "texts": ["hate", "fine"]}
        found = (await http.post("/v1/guardrails/check", json=body)).json()
        assert [(r["decision"], r["code"], r["redacted"]) for r in found["results"]] == [
            ("block", "unsafe_content", "hate"),
            ("allow", "", "fine"),
        ]
        cards = (await http.get("/v1/guardrails/checks")).json()["data"]
        assert (cards[0]["name"], cards[0]["stage"]) == ("safety", "input")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/moderations", {}),
        ("/v1/moderations", {"input": ""}),
        ("/v1/moderations", {"input": []}),
        ("/v1/moderations", {"input": [{"type": "image_url", "image_url": {"url": "x"}}]}),
        ("/v1/guardrails/check", {"stage": "middle", "texts": ["a"]}),
        ("/v1/guardrails/check", {"stage": "input", "texts": ["a"] * 33}),
        ("/v1/guardrails/check", {"stage": "input", "texts": ["a"], "extra": 1}),
    ],
)
async def test_malformed_bodies_are_refused(stack, guardrail, path, body) -> None:
    """What is missing or wrong is named, with a stable code."""
    async with stack.http() as http:
        answer = await http.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


_OUTSIDE = {"properties": {"a": {"$ref": "http://127.0.0.1:9/schema"}}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/guardrails/check", {"stage": "output", "texts": ["a"], "schema": _OUTSIDE}),
        (
            "/v1/chat/completions",
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$dynamicRef": "file:///etc/passwd"}}}},
        ),
        ("/v1/chat/completions", {"tools": [{"type": "function", "function": {"name": "f", "parameters": _OUTSIDE}}]}),
    ],
)
async def test_a_schema_that_reaches_outside_is_refused(stack, guardrail, path, body) -> None:
    """Whoever sends a schema cannot make the service fetch an address or read a file."""
    async with stack.http() as http:
        answer = await http.post(path, json={"messages": [{"role": "user", "content": "x"}], **body} if "chat" in path else body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "schema_refused")


async def test_a_role_without_the_permission_is_refused(stack, guardrail) -> None:
    """Checking is a right of its own."""
    async with stack.http(await stack.new_key(role="knowledge_editor")) as http:
        assert (await http.post("/v1/moderations", json={"input": "x"})).status_code == 403
