"""The names of all checks, in the order of their results; apart from the checks so that settings load no model."""

INPUT: tuple[str, ...] = ("size", "addressing", "personal_data", "injection", "safety")
OUTPUT: tuple[str, ...] = (
    "form",
    "wording",
    "language",
    "links",
    "canary",
    "pii_leak",
    "prompt_leak",
    "safety",
    "citations",
    "extract",
    "grounding",
)
SAFETY_CATEGORIES: tuple[str, ...] = ("hate", "harassment", "sexual", "violence", "unsafe_request")
