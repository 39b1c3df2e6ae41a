"""Everything an operator may change about review."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings

Consent = Literal["none", "internal", "training"]


class Settings(ServiceSettings):
    """Read from `STRATA_REVIEW_*`; frozen once read."""

    model_config = SettingsConfigDict(env_prefix="STRATA_REVIEW_", env_nested_delimiter="__", frozen=True, extra="forbid")

    lease_seconds: PositiveFloat = Field(default=600.0, description="Time for which a claim keeps others away.")
    sweep_seconds: PositiveFloat = Field(
        default=1.0, description="Time between looks for missed deadlines and for facts that nobody has published."
    )
    run_wait_seconds: PositiveFloat = Field(default=15.0, description="Longest wait for the end of an escalated run before people see it.")
    missed_deadlines: NonNegativeInt = Field(
        default=5, description="Times that a missed deadline raises an alarm; after that only the metric tells."
    )
    extra_reviewers: NonNegativeInt = Field(default=2, description="Most reviewers that disagreement may add to those the rule demands.")
    workers: PositiveInt = Field(default=8, description="Escalations that are taken in at the same time.")
    rpc_timeout_seconds: PositiveFloat = Field(default=5.0, description="Longest wait for guardrail and audit.")
    mirror_refresh_seconds: PositiveFloat = Field(default=30.0, description="Time after which the queue is read afresh.")
    default_consent: Consent = Field(default="none", description="Consent class where neither request nor tenant states one.")
    tenant_consent: dict[str, Consent] = Field(
        default_factory=dict, description="Consent class by tenant, as JSON; a request may state less, never more."
    )
