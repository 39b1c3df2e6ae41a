"""Everything an operator may change about tool_sandbox."""

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `STRATA_TOOL_SANDBOX_*`; frozen once read."""

    model_config = SettingsConfigDict(env_prefix="STRATA_TOOL_SANDBOX_", env_nested_delimiter="__", frozen=True, extra="forbid")

    breaker_failures: PositiveInt = Field(default=5, description="Failures in a row after which a tool is not called for a while.")
    breaker_reset_seconds: PositiveFloat = Field(default=10.0, description="Time after which one call may try a failing tool again.")
