"""Everything an operator may change about webhooks."""

from ipaddress import IPv4Network, IPv6Network

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `STRATA_WEBHOOKS_*`; frozen once read."""

    model_config = SettingsConfigDict(env_prefix="STRATA_WEBHOOKS_", env_nested_delimiter="__", frozen=True, extra="forbid")

    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), description="Networks that are not public and may be reached all the same, as JSON; metadata services are never public."
    )
    allow_http: bool = Field(default=False, description="Whether addresses without TLS may be registered.")
    timeout_seconds: PositiveFloat = Field(default=10.0, description="Longest time of one attempt, from the name to the answer.")
    attempts: PositiveInt = Field(default=8, description="Attempts of one delivery before it is given up.")
    first_delay_seconds: PositiveFloat = Field(default=2.0, description="Wait after the first failed attempt; it doubles with each.")
    longest_delay_seconds: PositiveFloat = Field(default=3600.0, description="Longest wait between two attempts.")
    disable_after: PositiveInt = Field(default=40, description="Failed attempts in a row after which a webhook is disabled.")
    rotation_seconds: PositiveFloat = Field(default=86_400.0, description="Time for which a replaced secret still signs.")
    most_webhooks: PositiveInt = Field(default=20, description="Most webhooks of a tenant.")
    workers: PositiveInt = Field(default=16, description="Attempts at the same time.")
    workers_each: PositiveInt = Field(default=4, description="Attempts at the same time at one address.")
    workers_tenant: PositiveInt = Field(default=8, description="Attempts at the same time for one tenant.")
    mirror_refresh_seconds: PositiveFloat = Field(default=30.0, description="Time after which the registrations are read afresh.")
