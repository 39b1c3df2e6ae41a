"""Says how much a chunk has to do with a query on a scale that does not depend on the other chunks."""

import math
import re
from collections.abc import Sequence
from functools import lru_cache

_WORD = re.compile(r"[a-z0-9]+(?:[-'][a-z0-9]+)*")
_ENDINGS = ("ations", "ation", "ings", "ing", "edly", "ies", "ied", "ed", "es", "ly", "s", "e", "y")
_SHORTEST_STEM = 3
# Words that say nothing about the subject of a question.
_STOP = frozenset(
    """
    a about after again all also am an and any are as at be because been before being between both but by can could did do does
    doing down for from further get had has have having he her here hers him his how i if in into is it its just know like long
    make many may me mean might more most much must my need no nor not now of off on once only or other our out over own please
    same she should so some such take tell than thank that the their them then there these they thing this those through to too
    under until up us use very want was we were what when where which while who whom why will with would yes you your
    """.split()  # noqa: SIM905 - a list of a hundred literals would hide the words
)


def stems(text: str) -> set[str]:
    """Return the words of `text` that carry meaning, without their endings."""
    return {_stem(word) for word in _WORD.findall(text.lower()) if word not in _STOP and len(word) > 1}


def coverage(query_stems: set[str], text: str) -> float:
    """Return the share of the query's words that are in `text`; 0 for a query without any."""
    return len(query_stems & stems(text)) / len(query_stems) if query_stems else 0.0


def stem_weights(question: str, read: Sequence[set[str]]) -> dict[str, float]:
    """Return how much each word of the question tells, by how few of the sentences that were `read` have it."""
    return {stem: math.log(1 + len(read) / (1 + sum(stem in sentence for sentence in read))) for stem in stems(question)}


# The same words come again and again in what is compared with a query.
@lru_cache(maxsize=50_000)
def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word.removesuffix(ending)
    return word
