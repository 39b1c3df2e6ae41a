"""The file that maps tiers and adapters to deployments; wrong content stops the start with one line."""

import os
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from chassis.clearing import is_cleared
from inference.providers import ProviderKind

TIERS = ("small", "mid", "large", "reasoning")
Tier = Literal["small", "mid", "large", "reasoning"]


class ConfigurationError(OSError):
    """The file is missing or wrong; the message is one line that names what."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Price(_Strict):
    """US dollars per million tokens."""

    prompt_per_million: NonNegativeFloat = 0.0
    completion_per_million: NonNegativeFloat = 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return US dollars."""
        return (prompt_tokens * self.prompt_per_million + completion_tokens * self.completion_per_million) / 1e6


class Engine(_Strict):
    """How to start the engine of a deployment on this machine."""

    start: bool = True
    adapters_dir: Path = Path("models/adapters")
    port_step: NonNegativeInt = Field(default=0, description="Added to the port, so that two engines can run beside each other.")
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 16
    max_loras: PositiveInt = 4
    kv_cache_gib: PositiveInt = 2
    dtype: str = Field(default="auto", description="auto: bfloat16 where the processor multiplies it, else float32.")
    args: tuple[str, ...] = ()


class Deployment(_Strict):
    """An engine behind a URL."""

    kind: ProviderKind
    url: str
    base_model: str
    max_model_len: PositiveInt
    max_concurrency: PositiveInt = 16
    max_queue: NonNegativeInt = 256
    price: Price = Price()
    api_key_file: Path | None = None
    api_key_env: str | None = None
    tools: Literal["constrained", "native"] | None = Field(default=None, description="Default: constrained for vllm, native for openai.")
    tool_relevance: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Cosine of question and tool below which none is called; default: the model decides.",
    )
    engine: Engine | None = None
    cleared: bool | None = Field(default=None, description="Whether it may see personal data; default: on this machine.")
    region: str = Field(default="", description="Where it runs, for policies.")

    @property
    def sees_personal_data(self) -> bool:
        """Whether it is cleared."""
        return is_cleared(self.url, self.cleared)

    def endpoint(self, port: int) -> str:
        """Return the URL, `port` being that of the first engine of this stack."""
        return self.url.replace("{port}", str(port + (self.engine.port_step if self.engine else 0))).rstrip("/").removesuffix("/v1")

    def api_key(self, state_dir: Path) -> str:
        """Return the key for the engine, empty for none; raise ConfigurationError when it cannot be read."""
        if self.api_key_env:
            if not (key := os.environ.get(self.api_key_env)):
                raise ConfigurationError(f"the environment variable {self.api_key_env} is not set")
            return key
        if self.api_key_file is None:
            return ""
        try:
            return (state_dir / self.api_key_file).read_text().strip()
        except OSError as error:
            raise ConfigurationError(f"api_key_file: {error}") from error


def _named(value: object) -> object:
    return {"deployment": value} if isinstance(value, str) else value


class Target(_Strict):
    """Where a tier goes: a deployment, and others for when it cannot answer."""

    deployment: str
    fallbacks: tuple[str, ...] = ()


class Adapter(Target):
    """Where an adapter is served, and for which tenants; no tenants means all."""

    tenants: tuple[str, ...] = ()
    base_when_missing: bool = False


class Models(_Strict):
    """The whole file."""

    deployments: dict[str, Deployment] = Field(min_length=1)
    tiers: dict[Tier, Annotated[Target, BeforeValidator(_named)]]
    adapters: dict[str, Annotated[Adapter, BeforeValidator(_named)]] = {}

    @model_validator(mode="after")
    def _names_are_known(self) -> "Models":
        known = sorted(self.deployments)
        targets: list[tuple[str, Target]] = [(f"tier {name!r}", target) for name, target in self.tiers.items()]
        targets += [(f"adapter {name!r}", adapter) for name, adapter in self.adapters.items()]
        for what, target in targets:
            for name in (target.deployment, *target.fallbacks):
                if name not in self.deployments:
                    raise ValueError(f"{what} names the unknown deployment {name!r}; known: {known}")
        if missing := [tier for tier in TIERS if tier not in self.tiers]:
            raise ValueError(f"tiers without a deployment: {missing}")
        return self


def load(path: Path) -> Models:
    """Read the file; raise ConfigurationError with one line for whatever is wrong in it."""
    try:
        content = yaml.safe_load(path.read_text())
        return Models.model_validate(content)
    except ValidationError as error:
        problems = ("{}: {}".format(".".join(str(part) for part in e["loc"]) or "file", e["msg"]) for e in error.errors())
        raise ConfigurationError(f"{path}: {'; '.join(problems)}") from error
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: {' '.join(str(error).split())}") from error
