"""The registry: each check by its name, built from settings and the weights that it needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from encoders import Encoder
from encoders.grounding import SupportScorer
from encoders.guard import Guard
from encoders.injection import InjectionDetector
from encoders.reading import Reader
from encoders.safety import SafetyDetector
from guardrail.checks.addressing import AddressingCheck
from guardrail.checks.base import Answer, Check, Conversation
from guardrail.checks.canary import CanaryCheck
from guardrail.checks.citations import CitationsCheck
from guardrail.checks.extract import ExtractCheck
from guardrail.checks.foreign import ForeignInputCheck, ForeignOutputCheck, load_foreign
from guardrail.checks.form import FormCheck
from guardrail.checks.grounding import GroundingCheck
from guardrail.checks.injection import InjectionCheck
from guardrail.checks.language import LanguageCheck
from guardrail.checks.links import LinksCheck
from guardrail.checks.personal_data import PersonalDataCheck
from guardrail.checks.pii_leak import PiiLeakCheck
from guardrail.checks.prompt_leak import PromptLeakCheck
from guardrail.checks.safety import SafetyInputCheck, SafetyOutputCheck
from guardrail.checks.size import SizeCheck
from guardrail.checks.wording import WordingCheck
from guardrail.personal.detection import Detector, Policy
from guardrail.prompts import system_prompts
from guardrail.settings import Settings


@dataclass(frozen=True)
class Parts:
    """What checks are built from; each part is loaded once, when a check first asks for it."""

    settings: Settings

    @cached_property
    def encoder(self) -> Encoder:
        """The shared sentence encoder."""
        return Encoder.load()

    @cached_property
    def detector(self) -> Detector:
        """The detector of personal data."""
        s = self.settings
        weights = s.repository_dir / "models" / "personal"
        return Detector(Policy(s.pii_threshold, s.pii_quasi, s.business_identifiers, weights, s.pii_reported))

    @cached_property
    def guard(self) -> Guard:
        """What reads a text once for the checks of attacks and of safety."""
        return Guard.load(self.settings.repository_dir / "models" / "guard")

    @cached_property
    def injection(self) -> InjectionDetector:
        """The detector of attacks."""
        return InjectionDetector.load(self.settings.repository_dir / "models" / "injection", self.guard)

    @cached_property
    def safety(self) -> SafetyDetector:
        """The detector of unsafe texts."""
        return SafetyDetector.load(self.settings.repository_dir / "models" / "safety", self.guard)

    @cached_property
    def reader(self) -> Reader:
        """What remembers a reading for all checks that look at it."""
        return Reader(self.guard)

    @cached_property
    def scorer(self) -> SupportScorer:
        """The scorer of support."""
        return SupportScorer.load(self.settings.repository_dir / "models" / "grounding", self.encoder)


INPUT_CHECKS: Mapping[str, Callable[[Parts], Check[Conversation]]] = {
    "size": lambda p: SizeCheck(p.settings.max_characters),
    "addressing": lambda _: AddressingCheck(),
    "personal_data": lambda p: PersonalDataCheck(p.detector, p.settings.check_budget_ms),
    "injection": lambda p: InjectionCheck(p.injection, p.reader, p.settings.check_budget_ms),
    "safety": lambda p: SafetyInputCheck(p.safety, p.reader, p.settings.safety_blocked, p.settings.check_budget_ms),
}

OUTPUT_CHECKS: Mapping[str, Callable[[Parts], Check[Answer]]] = {
    "form": lambda _: FormCheck(),
    "wording": lambda p: WordingCheck(p.settings.max_answer_characters),
    "language": lambda _: LanguageCheck(),
    "links": lambda p: LinksCheck(p.settings.link_hosts),
    "canary": lambda p: CanaryCheck(p.settings.canaries),
    "pii_leak": lambda p: PiiLeakCheck(p.detector, p.settings.leak_types, p.settings.check_budget_ms),
    "prompt_leak": lambda p: PromptLeakCheck(system_prompts(p.settings.repository_dir / "domains"), p.settings.prompt_leak_words),
    "safety": lambda p: SafetyOutputCheck(p.safety, p.reader, p.settings.safety_blocked, p.settings.check_budget_ms),
    "citations": lambda _: CitationsCheck(),
    "extract": lambda p: ExtractCheck(p.settings.extract_notices),
    "grounding": lambda p: GroundingCheck(p.scorer, p.settings.check_budget_ms, threshold=p.settings.grounding_threshold),
}


def input_checks(parts: Parts) -> tuple[Check[Conversation], ...]:
    """Build the checks of what comes in that the settings name, then those of others; raise ForeignFileError."""
    foreign = (ForeignInputCheck(d) for d in load_foreign(parts.settings.foreign_file) if d.stage != "output")
    return (*(INPUT_CHECKS[name](parts) for name in parts.settings.input_checks), *foreign)


def output_checks(parts: Parts) -> tuple[Check[Answer], ...]:
    """Build the checks of what goes out that the settings name, then those of others; raise ForeignFileError."""
    foreign = (ForeignOutputCheck(d) for d in load_foreign(parts.settings.foreign_file) if d.stage == "output")
    return (*(OUTPUT_CHECKS[name](parts) for name in parts.settings.output_checks), *foreign)
