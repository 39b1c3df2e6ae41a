"""What the business decides, not a model: the declared rules of a domain, as expressions in a sandbox."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import ChainableUndefined, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PrivateAttr, ValidationError, model_validator

from chassis.logging import get_logger

log = get_logger("policy")
# Named who reads personal data, and nothing read it: the permission pii:read of a role does.
_RETIRED = frozenset({"disclosure"})
# A fact that nobody stated is false and equal to nothing, however deep a rule asks.
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=ChainableUndefined, autoescape=False)


class PolicyFileError(OSError):
    """A policy file cannot be used; the text names the file, the place and the reason."""


class RuleFailedError(Exception):
    """An expression raised an error on these facts, so nobody knows what it would have said."""


class Condition(BaseModel):
    """One expression over facts; it is compiled when it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    when: str = Field(min_length=1)
    _compiled: Callable[..., Any] = PrivateAttr()

    @model_validator(mode="after")
    def _compile(self) -> "Condition":
        try:
            self._compiled = _ENVIRONMENT.compile_expression(self.when, undefined_to_none=False)
        except TemplateError as error:
            raise ValueError(f"when: {error} in {self.when!r}") from error
        return self

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Return whether the expression is true of `facts`; raise RuleFailedError when it cannot be told."""
        try:
            return bool(self._compiled(**facts))
        except (TemplateError, SecurityError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise RuleFailedError(f"rule {self.id!r}: {error}") from error


class Changes(BaseModel):
    """What an override sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str | None = None
    tier: Literal["small", "mid", "large", "reasoning"] | None = None
    task: str | None = None


class Override(Condition):
    """Changes a route where its expression holds."""

    set: Changes


class Escalation(Condition):
    """Demands a person where its expression holds."""

    version: str
    owner: str
    reason: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    severity: Literal["low", "medium", "high", "critical"]
    deadline_seconds: PositiveFloat
    message: str = Field(min_length=1)
    # When the rule looks: at the request, at the answer before it leaves, or at both.
    at: Literal["route", "release", "always"] = "always"
    # How many people decide before anybody hears of it.
    reviewers: int = Field(default=1, ge=1, le=5)
    # Roles whose members may decide; empty for everyone with the permission.
    roles: tuple[str, ...] = ()

    def looks_at(self, stage: object) -> bool:
        """Return whether the rule is for this stage; without a stage every rule is."""
        return self.at == "always" or not isinstance(stage, str) or self.at == stage


class Policy(BaseModel):
    """One domain's policy file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    overrides: tuple[Override, ...] = ()
    escalation: tuple[Escalation, ...] = ()


def load_policy(path: Path) -> Policy:
    """Read one policy file; raise PolicyFileError."""
    try:
        policy = Policy.model_validate(_without_retired(path, yaml.safe_load(path.read_text())))
    except (OSError, yaml.YAMLError) as error:
        raise PolicyFileError(f"{path}: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors())
        raise PolicyFileError(f"{path}: {faults}") from error
    ids = [rule.id for rule in (*policy.overrides, *policy.escalation)]
    if twice := {rule for rule in ids if ids.count(rule) > 1}:
        raise PolicyFileError(f"{path}: rules named twice: {sorted(twice)}")
    return policy


def _without_retired(path: Path, content: Any) -> Any:
    """Return a file's content without keys of earlier versions that decided nothing; any other unknown key is an error."""
    if not isinstance(content, dict) or not (retired := _RETIRED & content.keys()):
        return content
    log.warning("policy_keys_ignored", file=str(path), keys=sorted(retired), instead="permissions of roles in domain.yaml")
    return {key: value for key, value in content.items() if key not in retired}


def load_policies(domains: Path) -> dict[str, Policy]:
    """Return the policy of every domain under `domains`, by name; raise PolicyFileError."""
    found = {path.parent.name: load_policy(path) for path in sorted(domains.glob("*/policy.yaml"))}
    if not found:
        raise PolicyFileError(f"{domains}: no policy.yaml in any folder")
    return found
