"""Who the services are: ports, who may call whom, and what each may do on the bus."""

from dataclasses import dataclass

from contracts.streams import (
    ANSWERS,
    ATTEMPTS,
    AUDIT_OUTDATED,
    AUDIT_WRITER,
    DELIVERIES,
    GATEWAY_INGRESS,
    GUARDRAIL_ERASURES,
    IDEMPOTENCY,
    KEYS,
    LEASES,
    ORCHESTRATOR_APPLIED,
    ORCHESTRATOR_BATCH,
    ORCHESTRATOR_ERASURES,
    ORCHESTRATOR_INTERACTIVE,
    ORCHESTRATOR_KNOWLEDGE,
    ORCHESTRATOR_REVIEWS,
    POLICIES,
    REVIEW_ERASURES,
    REVIEW_INTAKE,
    REVIEWS,
    RUNS,
    SESSIONS,
    STATUS,
    STOPS,
    WEBHOOKS,
    WEBHOOKS_ESCALATIONS,
    WEBHOOKS_QUEUE,
    WEBHOOKS_RESPONSES,
    WEBHOOKS_REVIEWS,
    Durable,
)
from contracts.subjects import (
    ADMITTED,
    APPLIED,
    CDC_PATTERN,
    CDC_STREAM,
    DECISION,
    ERASURE,
    ESCALATION,
    FAIRNESS,
    FEEDBACK,
    FRESHNESS,
    KNOWLEDGE,
    OUTDATED,
    PASSAGE,
    RESPONSE,
    REVIEW,
    REVIEW_DUE,
    WEBHOOK,
    Subject,
    audit_step,
    dead,
)

NATS_PORT = 4222
NATS_MONITOR_PORT = 8222
VLLM_PORT = 8100
# Witnesses of the audit log: programs of their own, with no identity on the bus.
WITNESS_PORTS = (9131, 9132)
DNS_SUFFIX = "strata.internal"

# The kinds of steps that a workflow may have; each leaves a record of its kind.
WORKFLOW_STEPS = ("screen", "route", "hypothesis", "retrieve", "tool", "generate", "template", "escalate", "release")
# Policies belong to the installation.
_POLICY_CHANGED = "system.policy_changed"
_AUDIT_PREFIX = "strata.v1.audit"


@dataclass(frozen=True)
class Identity:
    """One service: its ports, its gRPC callers and its rights on the bus."""

    name: str
    http_port: int
    grpc_port: int | None = None
    callers: tuple[str, ...] = ()
    publishes: tuple[Subject, ...] = ()
    publishes_raw: tuple[str, ...] = ()
    # Steps it may put on record: of any tenant, or as `tenant.step` of that one alone.
    records: tuple[str, ...] = ()
    subscribes: tuple[str, ...] = ()
    durables: tuple[Durable, ...] = ()
    reads_streams: tuple[str, ...] = ()
    reads_buckets: tuple[str, ...] = ()
    writes_buckets: tuple[str, ...] = ()

    @property
    def dns_name(self) -> str:
        """The name in the service's certificate."""
        return f"{self.name.replace('_', '-')}.{DNS_SUFFIX}"


SERVICES: tuple[Identity, ...] = (
    Identity(
        "gateway",
        8080,
        publishes=(ADMITTED, RESPONSE),
        records=("request", "response", "check", "knowledge", "session_erased", "stop_set", "stop_lifted", "webhook_change"),
        subscribes=(RESPONSE.pattern, DECISION.pattern),
        durables=(GATEWAY_INGRESS,),
        reads_streams=("RESPONSES",),
        reads_buckets=(IDEMPOTENCY, KEYS, STATUS, STOPS, RUNS, REVIEWS, ATTEMPTS),
        writes_buckets=(IDEMPOTENCY, STOPS, ATTEMPTS),
    ),
    Identity(
        "orchestrator",
        9110,
        publishes=(RESPONSE, DECISION, PASSAGE),
        records=(*WORKFLOW_STEPS, "response", "erased_orchestrator", _POLICY_CHANGED),
        # Kept answers that rest on what has changed; of erased people answers too, and their requests that nobody could run.
        publishes_raw=(f"$JS.API.STREAM.PURGE.KV_{ANSWERS}", "$JS.API.STREAM.PURGE.RESPONSES", "$JS.API.STREAM.MSG.DELETE.DEAD"),
        durables=(
            ORCHESTRATOR_INTERACTIVE,
            ORCHESTRATOR_BATCH,
            ORCHESTRATOR_REVIEWS,
            ORCHESTRATOR_KNOWLEDGE,
            ORCHESTRATOR_APPLIED,
            ORCHESTRATOR_ERASURES,
        ),
        reads_streams=("RESPONSES", "DEAD"),
        reads_buckets=(RUNS, REVIEWS, ANSWERS, STOPS, POLICIES),
        writes_buckets=(RUNS, ANSWERS, POLICIES),
    ),
    Identity("router", 9111, 9211, callers=("orchestrator", "cli")),
    Identity("retriever", 9112, 9212, callers=("orchestrator", "cli"), subscribes=(KNOWLEDGE.pattern, APPLIED.pattern)),
    Identity(
        "ingestor",
        9113,
        9213,
        callers=("gateway", "cli", "retriever"),
        publishes=(KNOWLEDGE, APPLIED, FRESHNESS, REVIEW_DUE),
        records=("knowledge",),
        # Which documents kept answers rest on is in their keys; their texts are not its business.
        publishes_raw=(CDC_PATTERN, dead(CDC_STREAM), f"$JS.API.STREAM.INFO.KV_{ANSWERS}"),
        subscribes=(CDC_PATTERN,),
        reads_streams=(CDC_STREAM,),
    ),
    # A Debezium Server, or whatever else sends change events; it may do nothing else.
    Identity("cdc", 0, publishes_raw=(CDC_PATTERN,)),
    Identity("inference", 9114, 9214, callers=("orchestrator", "gateway", "cli"), reads_buckets=(STOPS,)),
    Identity("tool_sandbox", 9115, 9215, callers=("orchestrator", "cli"), records=("tool",), reads_buckets=(STOPS,)),
    Identity(
        "guardrail",
        9116,
        9216,
        callers=("orchestrator", "gateway", "review", "cli"),
        publishes=(ESCALATION,),
        records=("escalate", "erased_guardrail", _POLICY_CHANGED),
        durables=(GUARDRAIL_ERASURES,),
        reads_buckets=(POLICIES, STOPS, SESSIONS),
        writes_buckets=(POLICIES, SESSIONS),
    ),
    Identity(
        "audit",
        9117,
        9217,
        callers=("gateway", "review", "cli"),
        publishes=(OUTDATED, ERASURE),
        records=("audit_read", "erasure", "hold_set", "hold_lifted", "system.keys_expired", _POLICY_CHANGED),
        # How full the stream is that records wait in.
        publishes_raw=(f"$JS.API.STREAM.INFO.{AUDIT_WRITER.stream}",),
        durables=(AUDIT_WRITER, AUDIT_OUTDATED),
        writes_buckets=(STATUS, LEASES, POLICIES),
        reads_buckets=(STATUS, LEASES, POLICIES),
    ),
    Identity(
        "review",
        9118,
        9218,
        callers=("gateway", "cli"),
        publishes=(REVIEW, FEEDBACK),
        records=("review", "erased_review"),
        # Examples that were made of an erased person's requests.
        publishes_raw=("$JS.API.STREAM.MSG.DELETE.FEEDBACK",),
        durables=(REVIEW_INTAKE, REVIEW_ERASURES),
        reads_streams=("FEEDBACK",),
        reads_buckets=(RUNS, REVIEWS),
        writes_buckets=(REVIEWS,),
    ),
    Identity(
        "webhooks",
        9119,
        9219,
        callers=("gateway", "cli"),
        publishes=(WEBHOOK,),
        records=("webhook",),
        durables=(WEBHOOKS_ESCALATIONS, WEBHOOKS_REVIEWS, WEBHOOKS_RESPONSES, WEBHOOKS_QUEUE),
        reads_buckets=(WEBHOOKS, DELIVERIES),
        writes_buckets=(WEBHOOKS, DELIVERIES),
    ),
    Identity("cli", 0, publishes=(FAIRNESS,), reads_streams=("DEAD",), reads_buckets=(KEYS, STATUS), writes_buckets=(KEYS,)),
)

BY_NAME: dict[str, Identity] = {identity.name: identity for identity in SERVICES}


def inbox_prefix(name: str) -> str:
    """Return the inbox prefix that belongs to one user of the bus alone."""
    return f"_INBOX_{name.replace('-', '_')}"


def permissions(identity: Identity) -> dict[str, list[str]]:
    """Return the subjects that a service may publish and subscribe to, and nothing beyond."""
    publish = [*(subject.pattern for subject in identity.publishes), *identity.publishes_raw]
    for record in identity.records:
        tenant, _, step = record.rpartition(".")
        publish.append(f"{_AUDIT_PREFIX}.{tenant or '*'}.{audit_step(step, identity.name)}")
    if identity.durables:
        publish.append("strata.v1.dead.*")
    for durable in identity.durables:
        publish += [
            f"$JS.API.CONSUMER.MSG.NEXT.{durable.stream}.{durable.name}",
            f"$JS.API.CONSUMER.INFO.{durable.stream}.{durable.name}",
            f"$JS.ACK.{durable.stream}.{durable.name}.>",
        ]
    for stream in (*identity.reads_streams, *(f"KV_{bucket}" for bucket in identity.reads_buckets)):
        publish += [
            f"$JS.API.STREAM.INFO.{stream}",
            f"$JS.API.DIRECT.GET.{stream}",
            f"$JS.API.DIRECT.GET.{stream}.>",
            f"$JS.API.STREAM.MSG.GET.{stream}",
        ]
    # A stream is read message by message, for its consumers are others' durables; a bucket is watched by one that ends by itself.
    for bucket in identity.reads_buckets:
        publish += [
            f"$JS.API.CONSUMER.CREATE.KV_{bucket}",
            f"$JS.API.CONSUMER.CREATE.KV_{bucket}.>",
            f"$JS.API.CONSUMER.INFO.KV_{bucket}.>",
        ]
    publish += [f"$KV.{bucket}.>" for bucket in identity.writes_buckets]
    publish += ["$JS.FC.>"] if identity.reads_buckets else []
    # An empty allow list would allow everything.
    return {"publish": publish or ["strata.v1.none"], "subscribe": [*identity.subscribes, f"{inbox_prefix(identity.name)}.>"]}


def tenant_permissions(tenant: str, user: str) -> dict[str, list[str]]:
    """Return the rights of a tenant's own system: its requests, its responses, its audit and escalations."""
    return {
        "publish": [f"strata.v1.request.*.{tenant}"],
        "subscribe": [
            f"strata.v1.response.{tenant}.>",
            f"strata.v1.audit.{tenant}.>",
            f"strata.v1.escalation.{tenant}.>",
            f"strata.v1.decision.{tenant}.>",
            f"strata.v1.review.{tenant}.>",
            f"strata.v1.feedback.{tenant}",
            f"strata.v1.outdated.{tenant}",
            f"{inbox_prefix(user)}.>",
        ],
    }
