"""How much a part of a document speaks of what the rest speaks of: a hidden order brings words of its own."""

import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[^\W\d_]{3,}")
_STEM = 6
_EMPTY_TEXT = """
about after all also and any are before between but can could did does for from get give had has have her his how into its just let
made make may more most must not one only other our out over please she should some such than that the their them then there they
this under use used using was were what when where which while who why will with would you your because been each
"""
_EMPTY = frozenset(word[:_STEM] for word in _EMPTY_TEXT.split())


def familiarity(parts: Sequence[str]) -> list[float]:
    """Return for each part the share of its words, cut to stems of six letters, that other parts have too; 0 for one without words."""
    found = [{word[:_STEM].lower() for word in _WORD.findall(part)} - _EMPTY for part in parts]
    times = Counter(word for words in found for word in words)
    return [sum(times[word] > 1 for word in words) / max(1, len(words)) for words in found]
