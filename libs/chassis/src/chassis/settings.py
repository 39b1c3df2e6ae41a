"""What every service lets an operator change, read from the environment over one YAML file."""

import os
import sys
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from contracts.identities import BY_NAME, NATS_PORT


class NatsSettings(BaseModel):
    """How to reach the bus."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(default="", description="URL of the bus; empty derives it from STRATA_PORT_OFFSET.")
    seed_file: Path | None = Field(default=None, description="File with the nkey seed; empty takes the one in the state folder.")
    ping_interval_seconds: PositiveFloat = Field(default=5.0, description="Silence after which the connection is probed.")
    request_timeout_seconds: PositiveFloat = Field(default=5.0, description="Longest wait for the bus to acknowledge.")


class _YamlSection(PydanticBaseSettingsSource):
    """The section of the service in the file that STRATA_CONFIG_FILE names."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - pydantic's signature
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        path = os.environ.get("STRATA_CONFIG_FILE")
        if not path:
            return {}
        section = str(self.config["env_prefix"]).removeprefix("STRATA_").removesuffix("_").lower()
        content = yaml.safe_load(Path(path).read_text()) or {}
        return dict(content.get(section) or {})


class ServiceSettings(BaseSettings):
    """Settings that all services share; subclasses set `env_prefix` and add their own."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", frozen=True, extra="forbid")

    state_dir: Path = Field(default=Path(".strata"), validation_alias="STRATA_STATE_DIR", description="Folder of all state.")
    repository_dir: Path = Field(default=Path(), validation_alias="STRATA_HOME", description="Folder that holds models/ and domains/.")
    port_offset: int = Field(default=0, ge=0, le=55_000, validation_alias="STRATA_PORT_OFFSET", description="Added to every default port.")
    bind_host: str = Field(default="127.0.0.1", validation_alias="STRATA_BIND_HOST", description="Address to listen on.")
    peer_host: str = Field(
        default="127.0.0.1",
        validation_alias="STRATA_PEER_HOST",
        description="Host of the others; `{service}` is their name.",
    )
    nats: NatsSettings = Field(default_factory=NatsSettings, description="How to reach the bus.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", validation_alias="STRATA_LOG_LEVEL", description="Least severe level that is logged."
    )
    deadline_factor: PositiveFloat = Field(
        default=1.0, validation_alias="STRATA_DEADLINE_FACTOR", description="Stretches every deadline of a workflow, for slow machines."
    )
    drain_seconds: PositiveFloat = Field(default=10.0, description="Longest wait for work in flight at shutdown.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _YamlSection(settings_cls)

    @property
    def nats_url(self) -> str:
        """URL of the bus."""
        host = self.peer_host.format(service="nats")
        return self.nats.url or f"nats://{host}:{NATS_PORT + self.port_offset}"

    def http_port(self, service: str) -> int:
        """Return the port on which `service` answers HTTP."""
        return BY_NAME[service].http_port + self.port_offset

    def grpc_port(self, service: str) -> int:
        """Return the port on which `service` answers gRPC; KeyError for one without."""
        port = BY_NAME[service].grpc_port
        if port is None:
            raise KeyError(service)
        return port + self.port_offset

    def grpc_target(self, service: str) -> str:
        """Return host and port on which `service` answers gRPC."""
        host = self.peer_host.format(service=service.replace("_", "-"))
        return f"{host}:{self.grpc_port(service)}"


S = TypeVar("S", bound=ServiceSettings)


def load(settings_type: type[S]) -> S:
    """Read the settings; leave the process with one readable line when a value is wrong."""
    try:
        return settings_type()
    except (ValidationError, yaml.YAMLError, OSError) as error:
        sys.exit(f"configuration: {_one_line(error)}")


def _one_line(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    return "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']} (got {e.get('input')!r})" for e in error.errors())
