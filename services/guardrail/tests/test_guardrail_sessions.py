"""Pseudonyms over the turns of a session, and where a session with personal data may go."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chassis.clearing import Deployment, deployments
from chassis.errors import InternalError
from chassis.messaging import Bus, connect
from chassis.rpc import call
from contracts.streams import SESSIONS
from guardrail.clearance import CedarFileError, Clearances
from guardrail.personal.sessions import Owner, Session, Sessions
from guardrail.settings import Settings
from strata.gateway.v1.gateway_events_pb2 import Caller, ChatMessage
from strata.guardrail.v1 import guardrail_service_pb2 as pb
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub
from testkit.nats import NatsServer

ROOT = Path(__file__).parents[3]
ADA = Caller(tenant="clinic", role="nurse", user="ada-the-nurse", permissions=["pii:read"])
BOB = Caller(tenant="clinic", role="nurse", user="bob", permissions=["pii:read"])
LOCAL = Deployment("local", "vllm", "here", cleared=True)
REMOTE = Deployment("remote", "openai", "there", cleared=False)


@asynccontextmanager
async def connected() -> AsyncIterator[Bus]:
    """The bus with guardrail's own rights."""
    bus = await connect(Settings(STRATA_HOME=ROOT), "guardrail")
    try:
        yield bus
    finally:
        await bus.drain()


async def turn(
    stub: GuardrailServiceStub, text: str, *, caller: Caller = ADA, session: str = "first-session", request: str = "r1"
) -> pb.CheckInputResponse:
    """Screen one turn."""
    message = ChatMessage(role="user", content=text)
    asked = pb.CheckInputRequest(request_id=request, trace_id="t", caller=caller, messages=[message], session_id=session, domain="retail")
    response: pb.CheckInputResponse = await call(stub.CheckInput, asked, timeout=180)
    return response


async def test_a_session_keeps_its_pseudonyms_and_its_sensitivity_until_it_is_erased(
    stub: GuardrailServiceStub, capfd: pytest.CaptureFixture[str]
) -> None:
    """A value has one pseudonym over all turns, for its own user alone; nothing readable is stored; erasing forgets it."""
    first = await turn(stub, "My name is Angela Whitfield and I want to return boots.")
    assert "<PERSON_1>" in first.messages[0].content
    second = await turn(stub, "Send it to Peter Novak, not to Angela Whitfield.", request="r2")
    assert second.messages[0].content == "Send it to <PERSON_2>, not to <PERSON_1>."
    tool = ChatMessage(role="tool", content='{"owner": "Peter Novak", "mail": "peter.novak@example.com"}')
    asked = pb.CheckInputRequest(request_id="r2", trace_id="t", caller=ADA, messages=[tool], session_id="first-session")
    from_tool = (await call(stub.CheckInput, asked, timeout=180)).messages[0].content
    assert from_tool == '{"owner": "<PERSON_2>", "mail": "<EMAIL_1>"}'
    quiet = await turn(stub, "Which boots are waterproof?", request="r3")
    assert (quiet.verdict.decision, quiet.clearance.sensitivity) == (pb.DECISION_ALLOW, "personal")
    assert (await turn(stub, "Which boots are waterproof?", caller=BOB)).clearance.sensitivity == "none"
    reply = pb.CheckOutputRequest(
        request_id="r3", trace_id="t", caller=ADA, final=True, text="Ready, <PERSON_2>.", origin=pb.ORIGIN_MODEL, vault=quiet.vault
    )
    assert (await call(stub.CheckOutput, reply, timeout=180)).release.text == "Ready, Peter Novak."
    async with connected() as connection:
        bucket = await connection.js.key_value(SESSIONS)
        stored = [(key, (await bucket.get(key)).value or b"") for key in await bucket.keys()]
    assert [key.split(".")[0] for key, _ in stored] == ["clinic"]
    assert not any(
        word in key.encode() + value for key, value in stored for word in (b"Angela", b"Novak", b"ada-the-nurse", b"first-session")
    )
    assert json.loads(stored[0][1])["purpose"] == "answer within a session"
    erase = pb.EraseSessionRequest(caller=ADA, session_id="first-session")
    assert [(await call(stub.EraseSession, erase, timeout=180)).erased for _ in range(2)] == [True, False]
    after = await turn(stub, "It is for Peter Novak.", request="r4")
    assert after.messages[0].content == "It is for <PERSON_1>."
    logged = "".join(capfd.readouterr())
    assert not any(word in logged for word in ("Angela", "Whitfield", "Novak", "example.com"))


async def test_turns_at_once_never_share_a_pseudonym(bus: NatsServer) -> None:
    """Twenty turns that add a value each at the same time end with twenty values under twenty names."""
    owner = Owner("clinic", "ada", "s2")

    def adds(value: str):  # type: ignore[no-untyped-def]
        return lambda before: (Session({**before.values, f"<PERSON_{len(before.values) + 1}>": value}, personal=True), None)

    async with connected() as connection:
        sessions = Sessions(connection, b"k" * 32, purpose="test", retention_seconds=60)
        for start in range(0, 20, 4):
            await asyncio.gather(*(sessions.change(owner, adds(f"name {n}")) for n in range(start, start + 4)))
        kept = await sessions.change(owner, lambda before: (before, before))
        assert len(kept.values) == len(set(kept.values.values())) == 20
        gone = Sessions(connection, b"k" * 32, purpose="test", retention_seconds=0.001)
        await gone.change(owner, lambda before: (before, None))
        await asyncio.sleep(0.01)
        assert (await gone.change(owner, lambda before: (before, before))).values == {}


async def test_a_sealed_session_opens_for_nobody_else(bus: NatsServer) -> None:
    """What is copied under another session's name cannot be read there."""
    ada, bob = Owner("clinic", "ada", "s3"), Owner("clinic", "bob", "s3")
    async with connected() as connection:
        sessions = Sessions(connection, b"k" * 32, purpose="test", retention_seconds=60)
        await sessions.change(ada, lambda _: (Session({"<PERSON_1>": "Ada Moss"}, personal=True), None))
        bucket = await connection.js.key_value(SESSIONS)
        entry = await bucket.get(sessions._name(ada))
        await bucket.put(sessions._name(bob), entry.value or b"")
        with pytest.raises(InternalError):
            await sessions.change(bob, lambda before: (before, before))


@pytest.mark.parametrize("domain", ["", "general", "retail", "healthcare"])
def test_personal_data_goes_to_cleared_deployments_alone(domain: str) -> None:
    """Whatever the domain, a deployment that is not cleared is not among those allowed; the deciding policy is named."""
    clearances = Clearances.load(ROOT / "domains", [LOCAL, REMOTE])
    cleared = clearances.decide(domain, ADA, "personal")
    assert cleared.deployments == ("local",)
    assert cleared.policy_ids == (("cleared-for-health-data",) if domain == "healthcare" else ("cleared-for-personal-data",))


def test_without_personal_data_the_domain_decides() -> None:
    """A shop's question may go to any deployment, a message to a clinic to none that is not cleared."""
    clearances = Clearances.load(ROOT / "domains", [LOCAL, REMOTE])
    assert clearances.decide("retail", ADA, "none").deployments == ("local", "remote")
    assert clearances.decide("healthcare", ADA, "none").deployments == ("local",)


def test_a_policy_can_forbid_by_role_and_region() -> None:
    """Roles and regions are for policies to speak of, and a forbidding one is named."""
    policies = """
    @id("all") permit (principal, action, resource);
    @id("here-only") forbid (principal in Tenant::"clinic", action, resource) unless { resource.region == "here" };
    """
    schema = (ROOT / "domains/schema/schema.cedarschema").read_text()
    cleared = Clearances({"shop": policies}, schema, [LOCAL, REMOTE]).decide("shop", ADA, "none")
    assert (cleared.deployments, cleared.policy_ids) == (("local",), ("all", "here-only"))


def test_a_wrong_policy_stops_the_start(tmp_path: Path) -> None:
    """An attribute that the schema does not know, and text that is no policy, are errors that name the folder."""
    (tmp_path / "schema").mkdir()
    (tmp_path / "schema" / "schema.cedarschema").write_text((ROOT / "domains/schema/schema.cedarschema").read_text())
    (tmp_path / "shop").mkdir()
    for text in ("permit (principal, action, resource) when { resource.colour };", "permit everything"):
        (tmp_path / "shop" / "policies.cedar").write_text(text)
        with pytest.raises(CedarFileError):
            Clearances.load(tmp_path, [LOCAL])


def test_only_what_runs_here_is_cleared_unless_the_file_says_so(tmp_path: Path) -> None:
    """The shipped engine is cleared; a URL elsewhere is not, whatever its kind, until somebody states it."""
    assert deployments(ROOT / "deploy/config/models.yaml")["local"].cleared
    path = tmp_path / "models.yaml"
    path.write_text(
        "deployments:\n  a: {kind: openai, url: 'https://models.example.com'}\n  b: {kind: vllm, url: 'http://gpu-host:8000'}\n"
        "  c: {kind: vllm, url: 'http://gpu-host:8000', cleared: true}\n"
    )
    assert {name: found.cleared for name, found in deployments(path).items()} == {"a": False, "b": False, "c": True}
