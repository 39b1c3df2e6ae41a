"""The catalogue of subjects: each with its stream, its message and its encoding."""

import re
from dataclasses import dataclass

from google.protobuf.message import Message

from strata.audit.v1.audit_events_pb2 import AnswersOutdated, ErasureOrdered, StepRecorded
from strata.gateway.v1.gateway_events_pb2 import RequestAdmitted, RequestReceived
from strata.guardrail.v1.guardrail_events_pb2 import Escalated, FairnessMeasured
from strata.ingestor.v1.ingestor_events_pb2 import FreshnessChanged, KnowledgeApplied, KnowledgeChanged, ReviewDue
from strata.orchestrator.v1.orchestrator_events_pb2 import DecisionReleased, PassageFlagged, ResponseReleased
from strata.review.v1.review_events_pb2 import ExampleCollected, ReviewDecided
from strata.webhooks.v1.webhooks_events_pb2 import DeliveryQueued

TOKEN = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")


class InvalidTokenError(ValueError):
    """A name cannot be a token of a subject: it is empty, too long or holds a wildcard, dot or space."""


def token(value: str, *, what: str = "name") -> str:
    """Return `value` if it can be one token of a subject; raise InvalidTokenError otherwise."""
    if not TOKEN.fullmatch(value):
        raise InvalidTokenError(f"{what} {value!r} must be 1 to 64 of a-z, 0-9, '-' and '_', and begin and end with a letter or digit")
    return value


@dataclass(frozen=True)
class Subject:
    """A family of subjects: `template` with one `{name}` for each variable token."""

    template: str
    stream: str
    message: type[Message]
    json: bool
    summary: str

    def at(self, **tokens: str) -> str:
        """Return the concrete subject; raise InvalidTokenError for a token that could widen it."""
        return self.template.format(**{k: token(v, what=k) for k, v in tokens.items()})

    @property
    def pattern(self) -> str:
        """The subject with a wildcard for each variable token."""
        return re.sub(r"\{[^}]*\}", "*", self.template)


REQUEST = Subject(
    "strata.v1.request.{request_class}.{tenant}",
    "REQUESTS",
    RequestReceived,
    json=True,
    summary="A client asks over the bus; the gateway authenticates it.",
)
ADMITTED = Subject(
    "strata.v1.admitted.{request_class}.{tenant}",
    "REQUESTS",
    RequestAdmitted,
    json=False,
    summary="The gateway admitted a request; only the gateway may publish it.",
)
RESPONSE = Subject(
    "strata.v1.response.{tenant}.{request_id}",
    "RESPONSES",
    ResponseReleased,
    json=True,
    summary="A signed window of an answer, or the code of the error that ended it.",
)
DECISION = Subject(
    "strata.v1.decision.{tenant}.{request_id}",
    "RESPONSES",
    DecisionReleased,
    json=True,
    summary="A person has decided, and this is the signed answer.",
)
AUDIT = Subject(
    "strata.v1.audit.{tenant}.{step}",
    "AUDIT",
    StepRecorded,
    json=True,
    summary="A step of a request is done.",
)
# Steps that several services put on record, with the one whose the plain subject is.
_SHARED_STEPS = {
    "tool": "tool_sandbox",
    "escalate": "guardrail",
    "knowledge": "ingestor",
    "response": "gateway",
    "policy_changed": "guardrail",
}


def audit_step(step: str, service: str) -> str:
    """Return the token of `AUDIT` under which a service records a step: another one for each, so that none records in another's name."""
    return step if _SHARED_STEPS.get(step, service) == service else f"{service}-{step}"


ESCALATION = Subject(
    "strata.v1.escalation.{tenant}.{reason}",
    "ESCALATIONS",
    Escalated,
    json=True,
    summary="A person must decide.",
)
REVIEW = Subject(
    "strata.v1.review.{tenant}.{decision}",
    "REVIEWS",
    ReviewDecided,
    json=True,
    summary="People have decided about an escalated request, labelled it, or missed its deadline.",
)
FEEDBACK = Subject(
    "strata.v1.feedback.{tenant}",
    "FEEDBACK",
    ExampleCollected,
    json=True,
    summary="A reviewed request may be learned from.",
)
KNOWLEDGE = Subject(
    "strata.v1.knowledge.{kind}.{event}",
    "KNOWLEDGE",
    KnowledgeChanged,
    json=True,
    summary="The index holds a change of the knowledge.",
)

APPLIED = Subject(
    "strata.v1.applied.{source}",
    "KNOWLEDGE",
    KnowledgeApplied,
    json=True,
    summary="A group of change events of a source is searchable.",
)
OUTDATED = Subject(
    "strata.v1.outdated.{tenant}",
    "KNOWLEDGE",
    AnswersOutdated,
    json=True,
    summary="Answers rest on a version that is no longer in force.",
)
ERASURE = Subject(
    "strata.v1.erasure.{tenant}.{holder}",
    "ERASURES",
    ErasureOrdered,
    json=False,
    summary="A service must forget a person; only audit may say so, and only that service reads it.",
)
FRESHNESS = Subject(
    "strata.v1.signal.freshness",
    "SIGNALS",
    FreshnessChanged,
    json=True,
    summary="A source stops or starts again to hold its freshness promise.",
)
REVIEW_DUE = Subject(
    "strata.v1.signal.review_due",
    "SIGNALS",
    ReviewDue,
    json=True,
    summary="The review of a collection is due.",
)
FAIRNESS = Subject(
    "strata.v1.signal.fairness",
    "SIGNALS",
    FairnessMeasured,
    json=True,
    summary="Outcomes or decisions were measured by group.",
)
PASSAGE = Subject(
    "strata.v1.signal.passage",
    "SIGNALS",
    PassageFlagged,
    json=True,
    summary="A check objected to a passage that was found.",
)

WEBHOOK = Subject(
    "strata.v1.webhook.{tenant}.{webhook_id}",
    "WEBHOOK_DELIVERIES",
    DeliveryQueued,
    json=False,
    summary="An event is on its way to an address of a tenant.",
)

SUBJECTS: tuple[Subject, ...] = (
    REQUEST,
    ADMITTED,
    RESPONSE,
    DECISION,
    AUDIT,
    ESCALATION,
    REVIEW,
    FEEDBACK,
    KNOWLEDGE,
    APPLIED,
    OUTDATED,
    ERASURE,
    FRESHNESS,
    REVIEW_DUE,
    FAIRNESS,
    PASSAGE,
    WEBHOOK,
)

# Change events are Debezium's JSON envelopes on `cdc.<source>.<schema>.<table>`, not messages of ours.
CDC_STREAM = "CDC"
CDC_PREFIX = "cdc"
CDC_PATTERN = "cdc.>"

DEAD_PREFIX = "strata.v1.dead"


def dead(stream: str) -> str:
    """Return the subject on which messages of `stream` end that nobody could handle."""
    return f"{DEAD_PREFIX}.{stream}"
