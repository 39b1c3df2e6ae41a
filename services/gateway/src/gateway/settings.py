"""Everything an operator may change about the gateway."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings


class Limits(BaseModel):
    """What one tenant may use of one gateway process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: PositiveInt = Field(default=600, description="Sustained rate of requests.")
    request_burst: PositiveInt = Field(default=120, description="Requests that may come at once.")
    tokens_per_minute: PositiveInt = Field(default=400_000, description="Prompt and completion tokens, also the burst.")
    max_concurrent: PositiveInt = Field(default=128, description="Requests that may wait for an answer at the same time.")


class JwtSettings(BaseModel):
    """Whose tokens are accepted beside API keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    jwks_file: Path | None = Field(default=None, description="File with the issuer's public keys as a JWK set.")
    jwks_url: str = Field(default="", description="URL of the same; read in the background and again for an unknown key.")
    issuer: str = Field(min_length=1, description="Value that `iss` must have.")
    audience: str = Field(min_length=1, description="Value that `aud` must have or contain.")
    leeway_seconds: NonNegativeFloat = Field(default=30, le=60, description="Tolerated difference of clocks.")
    refresh_seconds: PositiveFloat = Field(default=300.0, description="Time after which the key set is read again.")

    @model_validator(mode="after")
    def _one_source(self) -> "JwtSettings":
        if bool(self.jwks_file) == bool(self.jwks_url):
            raise ValueError("give either jwks_file or jwks_url")
        return self


class Settings(ServiceSettings):
    """Read from `STRATA_GATEWAY_*`; frozen once read."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", frozen=True, extra="forbid", env_prefix="STRATA_GATEWAY_")

    max_body_bytes: PositiveInt = Field(default=256 * 1024, description="Largest body of a request.")
    body_seconds: PositiveFloat = Field(default=30.0, description="Longest wait for a body.")
    max_document_bytes: PositiveInt = Field(default=32 * 1024 * 1024, description="Largest file of an upload.")
    max_text_bytes: PositiveInt = Field(default=4 * 1024 * 1024, description="Largest text of a document that is sent as JSON.")
    upload_seconds: PositiveFloat = Field(default=180.0, description="Longest time that an upload may take as a whole.")
    max_messages: PositiveInt = Field(default=256, description="Most turns in one conversation.")
    max_tools: PositiveInt = Field(default=128, description="Most tools in one request.")
    max_pending: PositiveInt = Field(default=2048, description="Requests that may wait in this process; more are told to retry.")
    limits: Limits = Field(default_factory=Limits, description="Limits of a tenant that has none of its own.")
    tenant_limits: dict[str, Limits] = Field(default_factory=dict, description="Limits by tenant, as JSON.")
    jwt: JwtSettings | None = Field(default=None, description="Tokens to accept; absent accepts API keys only.")
    deadline_grace_seconds: PositiveFloat = Field(default=3.0, description="Added to a workflow's longest deadline.")
    max_wait_seconds: PositiveFloat = Field(default=60.0, description="Longest wait for an answer, whatever the workflow says.")
    replay_after_seconds: PositiveFloat = Field(default=2.0, description="Silence after which the stream is asked what was missed.")
    ping_seconds: PositiveFloat = Field(default=15.0, description="Silence after which a stream gets a comment.")
    models_refresh_seconds: PositiveFloat = Field(default=10.0, description="Time between looks at what inference serves.")
    rpc_timeout_seconds: PositiveFloat = Field(default=3.0, description="Longest wait for inference and audit.")
    takeover_seconds: PositiveFloat = Field(
        default=10.0, description="Age from which an idempotent request that was never admitted is admitted by its repeat."
    )
    abandoned_seconds: PositiveFloat = Field(
        default=60.0, description="Age from which nobody works on a stop that was begun, so that any gateway puts its outcome on record."
    )
    mirror_refresh_seconds: PositiveFloat = Field(default=30.0, description="Time after which keys and status are read afresh.")
    ingress_workers: PositiveInt = Field(default=16, description="Requests from the bus that are admitted at the same time.")
