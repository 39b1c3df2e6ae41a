"""gRPC in: translates, and leaves every decision to the domain."""

from functools import partial

from chassis.messaging import Bus
from chassis.rpc import Context
from chassis.stops import Stops
from guardrail import wire
from guardrail.canaries import Canaries
from guardrail.checks.base import Conversation, Decision, Piece
from guardrail.clearance import Clearances
from guardrail.escalation import Rules, Subject, announce
from guardrail.moderation import Moderator, Order
from guardrail.personal.sessions import Session, Sessions
from guardrail.personal.vault import Vault
from guardrail.releasing import Releaser, Signer
from guardrail.screening import Screened, Screener
from strata.guardrail.v1 import guardrail_service_pb2 as pb
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceServicer

PII_READ = "pii:read"


def _next_turn(screened: Screened, before: Session) -> tuple[Session, tuple[Screened, bool]]:
    """Return the session after this turn, and the turn with the session's pseudonyms and whether either holds personal data."""
    turn = screened.with_known(before.values)
    personal = before.personal or turn.personal
    # A turn that nobody may see leaves no values behind.
    values = turn.values if turn.texts else before.values
    return Session(values, personal), (turn, personal)


class GuardrailServicer(GuardrailServiceServicer):
    """Answers the questions of the contract."""

    def __init__(
        self,
        screener: Screener,
        releaser: Releaser,
        moderator: Moderator,
        rules: Rules,
        vault: Vault,
        sessions: Sessions,
        clearances: Clearances,
        canaries: Canaries,
        signer: Signer,
        bus: Bus,
        stops: Stops,
    ) -> None:
        """Hold the domain objects."""
        self._screener, self._releaser, self._moderator, self._rules = screener, releaser, moderator, rules
        self._sessions, self._clearances, self._canaries = sessions, clearances, canaries
        self._vault, self._signer, self._bus, self._stops = vault, signer, bus, stops

    async def CheckInput(self, request: pb.CheckInputRequest, context: Context) -> pb.CheckInputResponse:  # type: ignore[override]  # noqa: N802
        """Screen a conversation within the caller's deadline."""
        del context
        wire.require(request.request_id, request.caller)
        screened = await self._screener.screen(wire.to_conversation(request.messages))
        sensitive = screened.personal
        if request.session_id:
            owner = wire.to_owner(request.caller, request.session_id)
            screened, sensitive = await self._sessions.change(owner, partial(_next_turn, screened))
        vault = self._vault.seal(screened.values, tenant=request.caller.tenant, request_id=request.request_id)
        cleared = self._clearances.decide(request.domain, request.caller, "personal" if sensitive else "none")
        return wire.to_input_response(screened, request.messages, vault, cleared, self._canaries.current(request.caller.tenant))

    async def EraseSession(self, request: pb.EraseSessionRequest, context: Context) -> pb.EraseSessionResponse:  # type: ignore[override]  # noqa: N802
        """Forget what the pseudonyms of one of the caller's sessions stand for."""
        del context
        owner = wire.to_owner(request.caller, request.session_id)
        return pb.EraseSessionResponse(erased=await self._sessions.erase(owner))

    async def CheckOutput(self, request: pb.CheckOutputRequest, context: Context) -> pb.CheckOutputResponse:  # type: ignore[override]  # noqa: N802
        """Judge one window and sign it if it may leave."""
        del context
        wire.require(request.request_id, request.caller)
        # Whatever else runs on: what is not signed cannot leave.
        self._stops.check(tenant=request.caller.tenant)
        values = self._vault.unseal(request.vault, tenant=request.caller.tenant, request_id=request.request_id)
        answer = wire.to_answer(request, values, self._canaries.valid(request.caller.tenant))
        judged = await self._releaser.judge(answer, request.tool_calls, may_read=PII_READ in request.caller.permissions)
        # What a check would hand to a person, a person has decided; what must not pass at all does not pass for a person either.
        decided = request.origin == pb.ORIGIN_REVIEWED and judged.finding.decision is not Decision.BLOCK
        release = self._signer.sign(wire.to_claims(request, judged.finding.decision), judged) if judged.passes or decided else None
        response = wire.to_output_response(judged, release)
        if request.keep and release is not None:
            # People write names that no model knew; what is learned from holds none.
            screened = (await self._screener.screen(Conversation((Piece("user", request.text),)))).with_known(values)
            response.kept_text = "".join(screened.texts)
        return response

    async def EvaluateRules(self, request: pb.EvaluateRulesRequest, context: Context) -> pb.EvaluateRulesResponse:  # type: ignore[override]  # noqa: N802
        """Decide by the domain's hard rules; an escalation is on the bus before the answer leaves."""
        del context
        wire.require(request.request_id, request.caller)
        rule = self._rules.decide(request.domain, wire.to_facts(request))
        if rule is not None:
            await announce(self._bus, Subject(request.request_id, request.trace_id, request.caller, request.domain), rule)
        return wire.to_rules_response(rule)

    async def Check(self, request: pb.CheckRequest, context: Context) -> pb.CheckResponse:  # type: ignore[override]  # noqa: N802
        """Judge texts of any stage; nothing is signed, stored or announced."""
        del context
        self._stops.check(tenant=request.caller.tenant)
        order = Order(
            request.stage,
            list(request.texts),
            frozenset(request.checks),
            wire.to_sources(request.passages),
            require_grounding=request.require_grounding,
            schema=request.schema_json,
            canaries=self._canaries.valid(request.caller.tenant),
            language=wire.to_language(request.language),
        )
        return pb.CheckResponse(results=await self._moderator.judge(order))

    async def ListChecks(self, request: pb.ListChecksRequest, context: Context) -> pb.ListChecksResponse:  # type: ignore[override]  # noqa: N802
        """Return the card of every check that runs."""
        del request, context
        return pb.ListChecksResponse(cards=self._moderator.cards)
