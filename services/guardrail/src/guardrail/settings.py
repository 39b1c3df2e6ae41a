"""Everything an operator may change about guardrail."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings
from guardrail.checks.names import INPUT, OUTPUT, SAFETY_CATEGORIES
from guardrail.personal.detection import QUASI_TYPES, TYPES, Quasi, Reported


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error
    return text


def _known(names: tuple[str, ...]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"unknown name {name!r}; known: {sorted(names)}")
        return name

    return AfterValidator(check)


class Settings(ServiceSettings):
    """Read from `STRATA_GUARDRAIL_*`; frozen once read."""

    model_config = SettingsConfigDict(**{**ServiceSettings.model_config, "env_prefix": "STRATA_GUARDRAIL_"})

    input_checks: tuple[Annotated[str, _known(INPUT)], ...] = Field(default=INPUT, description="Checks of what comes in, as JSON.")
    output_checks: tuple[Annotated[str, _known(OUTPUT)], ...] = Field(default=OUTPUT, description="Checks of what goes out, as JSON.")
    threads: PositiveInt = Field(default=4, description="Threads that run checks.")
    check_budget_ms: PositiveFloat = Field(default=5000.0, description="Longest time of one check; past it the check counts as failed.")
    max_characters: PositiveInt = Field(default=60_000, description="Most characters of a conversation.")
    pii_threshold: float = Field(default=0.5, ge=0, le=1, description="Least score at which a finding is personal data.")
    pii_quasi: Quasi = Field(
        default="linked",
        description="Dates, places, organisations: `linked` replaces them only beside a direct identifier; `never`, `always`.",
    )
    pii_reported: Reported = Field(
        default="stated",
        description="The same in what is reported: `stated` leaves out those of questions about a kind of patient.",
    )
    business_identifiers: tuple[Annotated[str, AfterValidator(_pattern)], ...] = Field(
        default=(r"#?\bW\d{7}\b", r"\bM-\d{6}\b", r"\bS-\d{4}\b", r"\bSL-\d{4}\b"),
        description="Patterns of identifiers that tools need, such as order and loyalty numbers; never replaced.",
    )
    leak_types: tuple[Annotated[str, _known(TYPES)], ...] = Field(
        default=tuple(t for t in TYPES if t != "PERSON" and t not in QUASI_TYPES),
        description="Types of personal data that a model may not write on its own.",
    )
    grounding_threshold: float | None = Field(
        default=None, ge=0, le=1, description="Least support of a claim; empty takes the scorer's own."
    )
    safety_blocked: tuple[Annotated[str, _known(SAFETY_CATEGORIES)], ...] = Field(
        default=SAFETY_CATEGORIES,
        description="Categories of unsafe text that are blocked; the others are only reported. Self-harm always goes to a person.",
    )
    link_hosts: tuple[str, ...] = Field(
        default=(), description="Hosts to which answers may link, besides what a source holds word for word."
    )
    canaries: tuple[str, ...] = Field(default=(), description="Planted secrets that may not leave in any disguise.")
    canary_rotation_seconds: PositiveFloat = Field(default=86_400.0, description="How long prompts of a tenant hold the same canary.")
    max_answer_characters: PositiveInt = Field(default=40_000, description="Most characters of an answer.")
    foreign_file: Path | None = Field(default=None, description="YAML file that declares detectors of others; see docs/governance.md.")
    prompt_leak_words: PositiveInt = Field(default=9, description="Run of words out of a system prompt that counts as a leak.")
    extract_notices: tuple[str, ...] = Field(
        default=("I cannot give a verified answer; these passages of the documents match your question:",),
        description="The product's own words that may stand beside quotations.",
    )
    default_deadline_seconds: PositiveFloat = Field(default=3600.0, description="Time for a person where no rule names one.")
    config_file: Path | None = Field(
        default=None,
        validation_alias="STRATA_INFERENCE_CONFIG_FILE",
        description="File of deployments, the same that inference reads; default deploy/config/models.yaml.",
    )
    session_purpose: str = Field(
        default="answer within a session", min_length=1, max_length=200, description="What the pseudonyms of a session are kept for."
    )
    session_retention_seconds: PositiveFloat = Field(
        default=86_400.0, le=30 * 86_400.0, description="How long after its last turn they are kept."
    )

    @property
    def models_file(self) -> Path:
        """The file of deployments."""
        return self.config_file or self.repository_dir / "deploy" / "config" / "models.yaml"
