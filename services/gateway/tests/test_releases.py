"""Nothing leaves that guardrail did not sign for this request."""

import asyncio

import openai
import pytest
import scripted
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chassis.messaging import connect, encode
from chassis.stops import Stops
from contracts import releases
from contracts.subjects import RESPONSE
from gateway.assembly import Assembly, ReleaseKeys
from gateway.audit_trail import AuditTrail
from gateway.publishing import Publisher
from gateway.responses import Waiting
from strata.guardrail.v1.guardrail_service_pb2 import ReleaseClaims

_ASK = [{"role": "user", "content": "Hello?"}]


async def _rejected(stack) -> list[str]:
    for _ in range(3600):
        found = [r.code for r in await scripted.records(stack.admin, "response") if r.outcome == "rejected"]
        if found:
            return found
        await asyncio.sleep(0.05)
    return []


def _forge(request, text: str):
    key = Ed25519PrivateKey.generate()
    claims = ReleaseClaims(
        request_id=request.request_id, trace_id=request.trace_id, tenant=request.caller.tenant, final=True, status="completed"
    )
    release = releases.sign(key, scripted.Signer.__name__, claims, text)
    return scripted.ResponseReleased(
        request_id=request.request_id, trace_id=request.trace_id, release=release, completion=scripted.completion()
    )


async def _publish_as_admin(stack, request, response) -> None:
    subject = RESPONSE.at(tenant=request.caller.tenant, request_id=request.request_id)
    await stack.admin.jetstream().publish(subject, encode(RESPONSE, response))


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_forged_response_is_refused_and_the_genuine_one_delivered(stack, streamed) -> None:
    """A response on the right subject with a wrong key is dropped and on record; the request keeps waiting."""

    async def attacked(orchestrator, request) -> None:
        await _publish_as_admin(stack, request, _forge(request, "Send your password."))
        unsigned = scripted.ResponseReleased(request_id=request.request_id, trace_id=request.trace_id, completion=scripted.completion())
        await _publish_as_admin(stack, request, unsigned)
        await stack.admin.publish(RESPONSE.at(tenant="acme", request_id=request.request_id), b"\xff[not json")
        await scripted.hello(orchestrator, request)

    stack.orchestrator.script = attacked
    answer = await stack.openai().chat.completions.create(model="auto", messages=_ASK, stream=streamed)
    text = "".join([c.choices[0].delta.content or "" async for c in answer]) if streamed else answer.choices[0].message.content

    assert text == "Hello, world [1]."
    assert "release_invalid" in await _rejected(stack)


async def test_altered_text_is_refused(stack) -> None:
    """One other letter under a genuine signature is not delivered."""

    async def altered(orchestrator, request) -> None:
        window = orchestrator.signer.window(request, 0, "Take 1 tablet.", final=scripted.completion())
        window.release.text = "Take 9 tablets."
        await _publish_as_admin(stack, request, window)
        await orchestrator.send(request, orchestrator.signer.window(request, 0, "Take 1 tablet.", final=scripted.completion()))

    stack.orchestrator.script = altered
    answer = await stack.openai().chat.completions.create(model="auto", messages=_ASK)

    assert answer.choices[0].message.content == "Take 1 tablet."
    assert await _rejected(stack) == ["release_invalid"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_windows_in_any_order_and_twice_make_one_answer(stack, streamed) -> None:
    """The sequence in the signed claims decides, not the order of arrival."""

    async def shuffled(orchestrator, request) -> None:
        windows = [orchestrator.signer.window(request, i, text) for i, text in enumerate("abc")]
        windows.append(orchestrator.signer.window(request, 3, "d", final=scripted.completion()))
        for index in (3, 1, 1, 0, 0, 2, 3):
            await orchestrator.send(request, windows[index])

    stack.orchestrator.script = shuffled
    answer = await stack.openai().chat.completions.create(model="auto", messages=_ASK, stream=streamed)
    text = "".join([c.choices[0].delta.content or "" async for c in answer]) if streamed else answer.choices[0].message.content

    assert text == "abcd"


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_without_its_end_is_an_error_at_the_deadline(run, streamed) -> None:
    """A truncated answer is never passed off as a whole one."""

    async def truncated(orchestrator, request) -> None:
        await orchestrator.send(request, orchestrator.signer.window(request, 0, "Hello"))
        await orchestrator.send(request, orchestrator.signer.window(request, 2, "world", final=scripted.completion()))

    async with run(max_wait_seconds=3 if streamed else 0.6, replay_after_seconds=0.2) as stack:
        stack.orchestrator.script = truncated
        texts = []

        async def read() -> None:
            answer = await stack.openai().chat.completions.create(model="auto", messages=_ASK, stream=streamed)
            async for chunk in answer:
                texts.append(chunk.choices[0].delta.content)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(openai.APIError) as caught:
            await read()

        assert texts == (["Hello"] if streamed else [])
        assert caught.value.code == "deadline_exceeded"


async def test_windows_that_were_missed_live_are_found_in_the_stream(bus, admin) -> None:
    """A gap is closed from the stream, and so is a whole answer that nobody heard: it costs time and no answer."""
    gateway = await connect(scripted.OtherSettings(), "gateway")
    signer = scripted.Signer(bus.state_dir)
    request = scripted.RequestAdmitted(request_id="r1", trace_id="t1")
    request.caller.tenant = "acme"
    for sequence, final in ((0, None), (1, scripted.completion())):
        response = signer.window(request, sequence, f"{sequence}", final=final)
        await admin.jetstream().publish(RESPONSE.at(tenant="acme", request_id="r1"), encode(RESPONSE, response))
    waiting = Waiting(
        gateway,
        AuditTrail(Publisher(gateway)),
        Assembly(ReleaseKeys(bus.state_dir), tenant="acme", request_id="r1", trace_id="t1"),
        Stops(gateway),
        tenant="acme",
        request_id="r1",
        deadline=asyncio.get_running_loop().time() + 0.2,
        replay_after=0.1,
    )
    await waiting.open()

    assert [window.text for window in await waiting.next(5)] == ["0", "1"]
    await waiting.close()
    await gateway.drain()


async def test_a_status_that_was_not_signed_is_refused(bus) -> None:
    """A release of a pending review cannot be delivered as completed."""
    signer = scripted.Signer(bus.state_dir)
    request = scripted.RequestAdmitted(request_id="r1", trace_id="t1")
    request.caller.tenant = "acme"
    window = signer.window(request, 0, "x", final=scripted.completion(status="pending_review"))
    window.completion.status = "completed"
    assembly = Assembly(ReleaseKeys(bus.state_dir), tenant="acme", request_id="r1", trace_id="t1")

    with pytest.raises(releases.ReleaseInvalidError, match="status"):
        assembly.take(encode(RESPONSE, window))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "a-larger-one"},
        {"prompt_tokens": 1},
        {"cost_usd": 9.0},
        {"verdict": "redact"},
        {"finish_reason": "length"},
        {"citations": []},
    ],
)
async def test_a_completion_that_was_not_signed_is_refused(bus, change) -> None:
    """Model, usage, verdict, reason and citations are covered by the signature; times, which nobody knows before it, are not."""
    signer = scripted.Signer(bus.state_dir)
    request = scripted.RequestAdmitted(request_id="r1", trace_id="t1")
    request.caller.tenant = "acme"
    window = signer.window(request, 0, "x", final=scripted.completion())
    altered = scripted.ResponseReleased.FromString(window.SerializeToString())
    altered.completion.CopyFrom(scripted.completion(**change))
    bare = scripted.ResponseReleased.FromString(window.SerializeToString())
    bare.ClearField("completion")
    assembly = Assembly(ReleaseKeys(bus.state_dir), tenant="acme", request_id="r1", trace_id="t1")
    for message in (altered, bare):
        with pytest.raises(releases.ReleaseInvalidError, match="completion"):
            assembly.take(encode(RESPONSE, message))

    window.completion.latency_ms["total"] = 77.7
    assert [taken.text for taken in assembly.take(encode(RESPONSE, window))] == ["x"]


async def test_a_release_for_another_request_is_refused(bus) -> None:
    """A genuine release of one request, trace or tenant is worth nothing for another."""
    signer = scripted.Signer(bus.state_dir)
    request = scripted.RequestAdmitted(request_id="r1", trace_id="t1")
    request.caller.tenant = "acme"
    window = signer.window(request, 0, "x", final=scripted.completion())
    for change in ({"request_id": "r2"}, {"trace_id": "t2"}, {"tenant": "other"}):
        expected = {"tenant": "acme", "request_id": "r1", "trace_id": "t1"} | change
        window.request_id, window.trace_id = expected["request_id"], expected["trace_id"]

        with pytest.raises(releases.ReleaseInvalidError):
            Assembly(ReleaseKeys(bus.state_dir), **expected).take(encode(RESPONSE, window))


async def test_any_bytes_are_refused_or_taken_but_never_break_the_assembly(bus) -> None:
    """Damaged genuine responses, byte by byte, raise the one error or deliver the one text."""
    signer = scripted.Signer(bus.state_dir)
    request = scripted.RequestAdmitted(request_id="r1", trace_id="t1")
    request.caller.tenant = "acme"
    body = encode(RESPONSE, signer.window(request, 0, "The text.", final=scripted.completion()))
    keys = ReleaseKeys(bus.state_dir)
    for position in range(0, len(body), 3):
        for byte in (0, 34, 123, 255, body[position] ^ 1):
            damaged = body[:position] + bytes([byte]) + body[position + 1 :]
            try:
                windows = Assembly(keys, tenant="acme", request_id="r1", trace_id="t1").take(damaged)
            except releases.ReleaseInvalidError:
                continue
            assert [window.text for window in windows] in ([], ["The text."])
