"""The only place that declares streams, durable consumers and key-value buckets."""

from dataclasses import dataclass

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    KeyValueConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import BadRequestError, NotFoundError

from contracts.subjects import (
    ADMITTED,
    APPLIED,
    AUDIT,
    CDC_PATTERN,
    CDC_STREAM,
    DECISION,
    ERASURE,
    ESCALATION,
    FEEDBACK,
    KNOWLEDGE,
    OUTDATED,
    REQUEST,
    RESPONSE,
    REVIEW,
    WEBHOOK,
)

HOUR = 3600.0
DAY = 24 * HOUR
GIB = 1024**3
_MOST_TRIES = 60


@dataclass(frozen=True)
class Durable:
    """A durable pull consumer: who reads what, and for how long a message is leased to a reader."""

    name: str
    stream: str
    filter_subject: str
    ack_wait_seconds: float
    max_deliver: int
    max_ack_pending: int = 1000


STREAMS: tuple[StreamConfig, ...] = (
    StreamConfig(
        name="REQUESTS",
        subjects=[REQUEST.pattern, ADMITTED.pattern],
        retention=RetentionPolicy.WORK_QUEUE,
        discard=DiscardPolicy.NEW,
        max_bytes=GIB,
        duplicate_window=120.0,
    ),
    StreamConfig(name="RESPONSES", subjects=[RESPONSE.pattern, DECISION.pattern], max_age=DAY, max_bytes=2 * GIB, allow_direct=True),
    StreamConfig(
        name="AUDIT",
        subjects=[AUDIT.pattern],
        # What the log has on its disk leaves at once, and nothing else ever does: full means that the log is behind.
        retention=RetentionPolicy.INTEREST,
        discard=DiscardPolicy.NEW,
        max_bytes=4 * GIB,
        deny_delete=True,
        deny_purge=True,
    ),
    StreamConfig(name="ESCALATIONS", subjects=[ESCALATION.pattern], max_age=30 * DAY, max_bytes=GIB),
    # A review that crashed between deciding and telling tells again when it is back, which may take a while.
    StreamConfig(name="REVIEWS", subjects=[REVIEW.pattern], max_age=30 * DAY, max_bytes=GIB, duplicate_window=HOUR),
    StreamConfig(name="FEEDBACK", subjects=[FEEDBACK.pattern], max_age=90 * DAY, max_bytes=GIB, duplicate_window=HOUR, allow_direct=True),
    StreamConfig(name="KNOWLEDGE", subjects=[KNOWLEDGE.pattern, APPLIED.pattern, OUTDATED.pattern], max_age=7 * DAY, max_bytes=GIB),
    StreamConfig(name="SIGNALS", subjects=["strata.v1.signal.*"], max_age=30 * DAY, max_bytes=GIB),
    # Full means that the source keeps its log until there is room again; dropping what is old would lose changes.
    StreamConfig(
        name=CDC_STREAM,
        subjects=[CDC_PATTERN],
        discard=DiscardPolicy.NEW,
        max_age=7 * DAY,
        max_bytes=2 * GIB,
        duplicate_window=300.0,
        allow_direct=True,
        # A batch is stored whole or not at all, with one sync to disk.
        allow_atomic=True,
    ),
    StreamConfig(
        name="WEBHOOK_DELIVERIES",
        subjects=[WEBHOOK.pattern],
        retention=RetentionPolicy.WORK_QUEUE,
        # What has no room stays in the stream it comes from; a slow receiver has a bound of its own, so that others keep their room.
        discard=DiscardPolicy.NEW,
        max_msgs_per_subject=5_000,
        discard_new_per_subject=True,
        max_age=7 * DAY,
        max_bytes=256 * 1024**2,
        duplicate_window=HOUR,
    ),
    # An order names whom it is about, and leaves with the one service that has carried it out.
    StreamConfig(
        name="ERASURES",
        subjects=[ERASURE.pattern],
        retention=RetentionPolicy.WORK_QUEUE,
        discard=DiscardPolicy.NEW,
        max_bytes=256 * 1024**2,
        duplicate_window=HOUR,
    ),
    StreamConfig(name="DEAD", subjects=["strata.v1.dead.*"], max_age=30 * DAY, max_bytes=GIB),
)

# A lease is renewed every third of ack_wait; a killed owner's work is taken over after at most ack_wait.
GATEWAY_INGRESS = Durable("gateway-ingress", "REQUESTS", REQUEST.pattern, ack_wait_seconds=10, max_deliver=5)
ORCHESTRATOR_INTERACTIVE = Durable(
    "orchestrator-interactive",
    "REQUESTS",
    ADMITTED.at(request_class="interactive", tenant="t").removesuffix("t") + "*",
    ack_wait_seconds=3,
    max_deliver=10,
    max_ack_pending=4096,
)
ORCHESTRATOR_BATCH = Durable(
    "orchestrator-batch",
    "REQUESTS",
    ADMITTED.at(request_class="batch", tenant="t").removesuffix("t") + "*",
    ack_wait_seconds=3,
    max_deliver=10,
    max_ack_pending=1024,
)
AUDIT_WRITER = Durable("audit-writer", "AUDIT", AUDIT.pattern, ack_wait_seconds=30, max_deliver=-1, max_ack_pending=10_000)
ORCHESTRATOR_KNOWLEDGE = Durable("orchestrator-knowledge", "KNOWLEDGE", KNOWLEDGE.pattern, ack_wait_seconds=10, max_deliver=20)
ORCHESTRATOR_APPLIED = Durable("orchestrator-applied", "KNOWLEDGE", APPLIED.pattern, ack_wait_seconds=10, max_deliver=20)
AUDIT_OUTDATED = Durable("audit-outdated", "KNOWLEDGE", KNOWLEDGE.pattern, ack_wait_seconds=10, max_deliver=20)
# An escalation waits for ever rather than be given up: behind each is somebody who was told to wait.
REVIEW_INTAKE = Durable("review-intake", "ESCALATIONS", ESCALATION.pattern, ack_wait_seconds=10, max_deliver=-1)
ORCHESTRATOR_REVIEWS = Durable("orchestrator-reviews", "REVIEWS", REVIEW.pattern, ack_wait_seconds=10, max_deliver=-1)

# Events that are taken in are remembered by the deliveries they cause, so that a repeat causes none.
WEBHOOKS_ESCALATIONS = Durable("webhooks-escalations", "ESCALATIONS", ESCALATION.pattern, ack_wait_seconds=10, max_deliver=-1)
WEBHOOKS_REVIEWS = Durable("webhooks-reviews", "REVIEWS", REVIEW.pattern, ack_wait_seconds=10, max_deliver=-1)
WEBHOOKS_RESPONSES = Durable("webhooks-responses", "RESPONSES", RESPONSE.pattern, ack_wait_seconds=10, max_deliver=-1)
WEBHOOKS_QUEUE = Durable(
    "webhooks-queue", "WEBHOOK_DELIVERIES", WEBHOOK.pattern, ack_wait_seconds=30, max_deliver=-1, max_ack_pending=20_000
)


def _erasures(holder: str) -> Durable:
    filter_subject = ERASURE.pattern.removesuffix("*") + holder
    return Durable(f"{holder}-erasures", "ERASURES", filter_subject, ack_wait_seconds=30, max_deliver=-1)


# Whoever keeps what people said; an order waits for each of them, however long it is away.
ORCHESTRATOR_ERASURES = _erasures("orchestrator")
REVIEW_ERASURES = _erasures("review")
GUARDRAIL_ERASURES = _erasures("guardrail")

DURABLES: tuple[Durable, ...] = (
    ORCHESTRATOR_ERASURES,
    REVIEW_ERASURES,
    GUARDRAIL_ERASURES,
    WEBHOOKS_ESCALATIONS,
    WEBHOOKS_REVIEWS,
    WEBHOOKS_RESPONSES,
    WEBHOOKS_QUEUE,
    GATEWAY_INGRESS,
    ORCHESTRATOR_INTERACTIVE,
    ORCHESTRATOR_BATCH,
    ORCHESTRATOR_REVIEWS,
    REVIEW_INTAKE,
    ORCHESTRATOR_KNOWLEDGE,
    ORCHESTRATOR_APPLIED,
    AUDIT_WRITER,
    AUDIT_OUTDATED,
)

RUNS = "RUNS"
IDEMPOTENCY = "IDEMPOTENCY"
KEYS = "KEYS"
STATUS = "STATUS"
# Who holds what only one process may do.
LEASES = "LEASES"
STOPS = "STOPS"
# What a gateway has begun and nobody has put the outcome of on record yet.
ATTEMPTS = "ATTEMPTS"
WEBHOOKS = "WEBHOOKS"
DELIVERIES = "DELIVERIES"
REVIEWS = "REVIEWS"
POLICIES = "POLICIES"
ANSWERS = "ANSWERS"
SESSIONS = "SESSIONS"

BUCKETS: tuple[KeyValueConfig, ...] = (
    KeyValueConfig(bucket=RUNS, history=1, ttl=DAY, max_bytes=2 * GIB, storage=StorageType.FILE, direct=True),
    KeyValueConfig(bucket=IDEMPOTENCY, history=1, ttl=DAY, max_bytes=GIB, storage=StorageType.FILE, direct=True),
    KeyValueConfig(bucket=KEYS, history=5, max_bytes=64 * 1024**2, storage=StorageType.FILE, direct=True),
    KeyValueConfig(bucket=REVIEWS, history=1, ttl=90 * DAY, max_bytes=2 * GIB, storage=StorageType.FILE, direct=True),
    KeyValueConfig(bucket=POLICIES, history=20, max_bytes=16 * 1024**2, storage=StorageType.FILE, direct=True),
    # Answers that may be given again; full means that no more are kept until some are old.
    KeyValueConfig(bucket=ANSWERS, history=1, ttl=HOUR, max_bytes=16 * 1024**2, storage=StorageType.FILE, direct=True),
    # Each entry says itself how long it is kept, which is never longer than this.
    KeyValueConfig(bucket=SESSIONS, history=1, ttl=30 * DAY, max_bytes=GIB, storage=StorageType.FILE, direct=True),
    KeyValueConfig(bucket=WEBHOOKS, history=1, max_bytes=16 * 1024**2, storage=StorageType.FILE, direct=True),
    KeyValueConfig(bucket=DELIVERIES, history=1, ttl=7 * DAY, max_bytes=256 * 1024**2, storage=StorageType.FILE, direct=True),
    # Every stop that was ever set stays in the history of its scope for a while.
    KeyValueConfig(bucket=STOPS, history=20, max_bytes=16 * 1024**2, storage=StorageType.FILE, direct=True),
    KeyValueConfig(bucket=ATTEMPTS, history=1, ttl=30 * DAY, max_bytes=16 * 1024**2, storage=StorageType.FILE, direct=True),
    KeyValueConfig(bucket=LEASES, history=1, max_bytes=16 * 1024**2, storage=StorageType.FILE, direct=True),
    KeyValueConfig(bucket=STATUS, history=1, max_bytes=16 * 1024**2, storage=StorageType.FILE, direct=True),
)

# Buckets that are logs: full means that what is oldest is forgotten.
LOGS = (DELIVERIES,)


async def declare(js: JetStreamContext) -> None:
    """Create or update every stream, consumer and bucket; safe to repeat."""
    for config in STREAMS:
        await _declare_stream(js, config)
    for bucket in BUCKETS:
        try:
            await js.key_value(bucket.bucket)
        except NotFoundError:
            await js.create_key_value(bucket)
    for name in LOGS:
        config = (await js.stream_info(f"KV_{name}")).config
        if config.discard != DiscardPolicy.OLD:
            await js.update_stream(config.evolve(discard=DiscardPolicy.OLD))
    for durable in DURABLES:
        await js.add_consumer(durable.stream, _consumer(durable))
    for config in STREAMS:
        if config.retention is RetentionPolicy.INTEREST:
            await _let_go(js, config)


async def _declare_stream(js: JetStreamContext, config: StreamConfig) -> None:
    # A stream that keeps what somebody waits for would drop everything until its consumer is there.
    keeps_all = config.evolve(retention=RetentionPolicy.LIMITS) if config.retention is RetentionPolicy.INTEREST else config
    try:
        await js.add_stream(keeps_all)
    except BadRequestError:
        if keeps_all is config:
            await js.update_stream(config)


async def _let_go(js: JetStreamContext, config: StreamConfig) -> None:
    """Have a stream keep only what is waited for; raise TimeoutError when it takes minutes to drop what an earlier version kept."""
    for _ in range(_MOST_TRIES):
        try:
            await js.update_stream(config)
        except TimeoutError:
            # The server answers nothing about the stream meanwhile: some ten seconds for each million messages.
            continue
        return
    raise TimeoutError(f"the stream {config.name} does not answer")


def _consumer(durable: Durable) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=durable.name,
        filter_subject=durable.filter_subject,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=durable.ack_wait_seconds,
        # The bound is enforced by the reader, which can then write the dead letter.
        max_deliver=-1,
        max_ack_pending=durable.max_ack_pending,
    )
