"""Names of what inference measures; the gen_ai names follow OpenTelemetry's GenAI conventions (development status, schema 1.42)."""

from prometheus_client import Counter, Gauge, Histogram

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
RESPONSE_FINISH = "gen_ai.response.finish_reasons"
RESPONSE_FIRST = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - a name, not a secret

CHAT = "chat"

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
_PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)


def _labels(*names: str) -> list[str]:
    """Prometheus knows no dots."""
    return [name.replace(".", "_") for name in names]


_MODEL = _labels(OPERATION, PROVIDER, REQUEST_MODEL)
OPERATION_SECONDS = Histogram(
    "gen_ai_client_operation_duration_seconds", "Time of a generation, with queueing.", [*_MODEL, "error_type"], buckets=_SECONDS
)
FIRST_TOKEN_SECONDS = Histogram("gen_ai_server_time_to_first_token_seconds", "Time to the first token.", _MODEL, buckets=_SECONDS)
PER_TOKEN_SECONDS = Histogram("gen_ai_server_time_per_output_token_seconds", "Time per token after the first.", _MODEL, buckets=_PER_TOKEN)
TOKENS = Histogram("gen_ai_client_token_usage", "Tokens of a generation.", [*_MODEL, *_labels(TOKEN_TYPE)], buckets=_TOKENS)

COST = Counter("strata_inference_cost_usd_total", "Cost in US dollars by the deployments' prices.", ["deployment", "model"])
RUNNING = Gauge("strata_inference_generations_running", "Generations that hold a place at the engine.", ["deployment"])
WAITING = Gauge("strata_inference_generations_waiting", "Generations that wait for a place.", ["deployment"])
READY = Gauge("strata_inference_deployment_ready", "Whether the engine answers.", ["deployment"])
REFUSED = Counter("strata_inference_policy_denied_total", "Generations that no permitted deployment was left for.")
FAILED_ATTEMPTS = Counter(
    "strata_inference_attempts_failed_total",
    "Attempts that failed before the first token, so that another may follow.",
    ["deployment", "code"],
)
