"""Canaries of prompts: derived for a tenant and a time, and caught in answers."""

from chassis.rpc import call
from guardrail.canaries import Canaries
from strata.gateway.v1.gateway_events_pb2 import Caller, ChatMessage
from strata.guardrail.v1 import guardrail_service_pb2 as pb
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub

CALLER = Caller(tenant="clinic", role="app")


def test_a_canary_belongs_to_a_tenant_and_changes() -> None:
    """It is the same within a period, valid for one more, and another for another tenant or key."""
    canaries = Canaries(b"k" * 32, rotation_seconds=100)
    first, second, third = (canaries.current("a", now=now) for now in (10, 110, 210))
    assert canaries.current("a", now=99) == first
    assert len({first, second, third, canaries.current("b", now=10), Canaries(b"x" * 32, rotation_seconds=100).current("a", now=10)}) == 5
    assert canaries.valid("a", now=110) == (second, first)
    assert first not in canaries.valid("a", now=210)


async def test_an_answer_that_holds_the_canary_of_its_prompt_is_blocked(stub: GuardrailServiceStub) -> None:
    """Also spelled out or cut over two windows; another tenant's canary means nothing here, and `Check` finds it too."""
    screened = await call(
        stub.CheckInput,
        pb.CheckInputRequest(request_id="r1", trace_id="t1", caller=CALLER, messages=[ChatMessage(role="user", content="Hello")]),
        timeout=180,
    )
    canary = screened.canary
    other = Caller(tenant="shop", role="app")
    for caller, text, before, code in (
        (CALLER, f"My reference is {canary}.", "", "canary_leak"),
        (CALLER, f"It reads {'-'.join(canary.upper())}.", "", "canary_leak"),
        (CALLER, f"{canary[7:]} is the rest.", f"My reference is {canary[:7]}", "canary_leak"),
        (other, f"My reference is {canary}.", "", ""),
    ):
        request = pb.CheckOutputRequest(
            request_id="r1", trace_id="t1", caller=caller, text=text, released_text=before, final=True, origin=pb.ORIGIN_TEMPLATE
        )
        checked = await call(stub.CheckOutput, request, timeout=180)
        assert (checked.verdict.code, checked.HasField("release")) == (code, not code)
    asked = pb.CheckRequest(caller=CALLER, stage=pb.STAGE_OUTPUT, texts=[f"It is {canary}."], checks=["canary"])
    assert (await call(stub.Check, asked, timeout=180)).results[0].verdict.code == "canary_leak"
