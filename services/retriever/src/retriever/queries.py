"""What is searched for a long message: a shorter query instead of it, or parts of it beside the whole; no model is asked."""

import re
from collections import Counter

from retriever.pieces import sentences
from retriever.relevance import stems
from retriever.words import words

REWRITES = ("question", "terms")
_WORD = re.compile(r"[A-Za-z0-9]+(?:[-'][A-Za-z0-9]+)*")
_TERMS = 20
# So many words, without stop words, are a question already; reranking draws the same line.
_QUESTION_WORDS = 20


def rewritten(query: str, how: str) -> str:
    """Return the sentences that ask, or the key terms; the query itself where it is short or has none."""
    if how not in REWRITES or len(words(query)) <= _QUESTION_WORDS:
        return query
    return (_asked(query) if how == "question" else key_terms(query)) or query


def parts(query: str, most: int) -> list[str]:
    """Return up to `most` queries beside a long message: its key terms, then sentences that ask, then those that say most."""
    if most < 1 or len(words(query)) <= _QUESTION_WORDS:
        return []
    texts = [query[start:end] for start, end in sentences(query)]
    counts = Counter(stem for text in texts for stem in stems(text))

    def told(text: str) -> float:
        return sum(counts[stem] for stem in stems(text))

    ordered = sorted((text for text in texts if stems(text)), key=lambda text: (not text.rstrip().endswith("?"), -told(text)))
    found = dict.fromkeys([key_terms(query), *ordered])
    return [text for text in found if text != query][:most]


def key_terms(text: str) -> str:
    """Return the words that a text repeats most, longer ones before shorter, in the order in which they come."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for word in _WORD.findall(text):
        for stem in stems(word):
            counts[stem] += 1
            first.setdefault(stem, word)
    chosen = set(sorted(counts, key=lambda stem: (-counts[stem], -len(stem)))[:_TERMS])
    return " ".join(word for stem, word in first.items() if stem in chosen)


def _asked(query: str) -> str:
    return " ".join(text for start, end in sentences(query) if (text := query[start:end].strip()).endswith("?"))
