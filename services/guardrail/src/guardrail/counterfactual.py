"""Judges texts as the checks of what comes in do, so that a swap of names can be seen to change nothing."""

from collections.abc import Sequence
from functools import cache

from chassis.settings import load as load_settings
from guardrail.checks import Parts
from guardrail.checks.base import Conversation, Piece
from guardrail.checks.injection import InjectionCheck
from guardrail.checks.safety import SafetyInputCheck
from guardrail.personal.pseudonyms import Pseudonyms
from guardrail.settings import Settings


@cache
def _parts() -> Parts:
    return Parts(load_settings(Settings))


def decide(texts: Sequence[str], domain: str) -> list[dict[str, str]]:
    """Return what injection and safety decide of each text, and whether its name is found; the domain makes no difference."""
    del domain
    parts = _parts()
    injection = InjectionCheck(parts.injection, parts.reader, parts.settings.check_budget_ms)
    safety = SafetyInputCheck(parts.safety, parts.reader, parts.settings.safety_blocked, parts.settings.check_budget_ms)
    decisions = []
    for text in texts:
        conversation = Conversation((Piece("user", text),))
        named = any(mention.type == "PERSON" for mention in parts.detector.detect(text))
        decisions.append(
            {
                "injection": injection.run(conversation).decision.name.lower(),
                "safety": safety.run(conversation).decision.name.lower(),
                "name_found": "yes" if named else "no",
            }
        )
    return decisions


def screened(texts: Sequence[str]) -> list[str]:
    """Return each text as it is passed on: with pseudonyms for the personal data that is found."""
    detector = _parts().detector
    return [Pseudonyms.beside([text]).replace(text, detector.detect(text)) for text in texts]
