"""The completion that leaves with the last window is part of what is signed."""

import json

import pytest

from chassis.errors import InvalidArgumentError
from chassis.json_mapping import to_json_bytes
from chassis.provisioning import load_release_keys
from chassis.rpc import call
from contracts.releases import ReleaseInvalidError, verify, verify_completion
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.guardrail.v1 import guardrail_service_pb2 as pb
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub
from strata.orchestrator.v1.orchestrator_events_pb2 import Citation, Completion
from testkit.nats import NatsServer

CALLER = Caller(tenant="clinic", role="app")


async def test_guardrail_signs_the_completion_with_its_own_decision(stub: GuardrailServiceStub, bus: NatsServer) -> None:
    """A verdict that nobody stated is that of this check; times may follow, nothing else may change; what is none is refused."""
    completion = Completion(
        status="completed", model="smollm2", prompt_tokens=7, cost_usd=1.0, confidence=0.5, citations=[Citation(id="1", quote="Grüße")]
    )
    completion.watermarks["a"] = 2**60
    request = pb.CheckOutputRequest(
        request_id="r1",
        trace_id="t1",
        caller=CALLER,
        final=True,
        text="We open at nine.",
        origin=pb.ORIGIN_TEMPLATE,
        completion=completion.SerializeToString(),
    )
    checked = await call(stub.CheckOutput, request, timeout=180)
    keys = load_release_keys(bus.state_dir)
    claims = verify(keys, checked.release, request_id="r1", trace_id="t1", tenant="clinic")
    completion.verdict = "allow"
    completion.latency_ms["total"] = 3.5
    completion.steps.add(step_id="release", latency_ms=1.5)
    sent = json.loads(to_json_bytes(completion))
    verify_completion(claims, sent)
    for altered in ({**sent, "verdict": "redact"}, {**sent, "prompt_tokens": 8}, {**sent, "extra": 1}, None):
        with pytest.raises(ReleaseInvalidError):
            verify_completion(claims, altered)
    request.completion = b"\xff\xff"
    with pytest.raises(InvalidArgumentError):
        await call(stub.CheckOutput, request, timeout=180)
