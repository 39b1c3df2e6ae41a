"""Fits passages to a reader: the sentences that match, no more words than fit, the best ones where they are read."""

from collections.abc import Sequence
from dataclasses import replace

from retriever.fusion import Candidate
from retriever.pieces import sentences
from retriever.relevance import stem_weights, stems


def narrow(candidates: Sequence[Candidate], question: str, words: int) -> list[Candidate]:
    """Return the candidates with texts of at most `words` words where they have sentences; the same text only once."""
    weights = stem_weights(question, [stems(c.chunk.text[start:end]) for c in candidates for start, end in sentences(c.chunk.text)])
    narrowed: dict[str, Candidate] = {}
    for candidate in candidates:
        start, end = _best(candidate.chunk.text, weights, words)
        chunk = candidate.chunk
        text = chunk.text[start:end]
        narrowed.setdefault(text, replace(candidate, chunk=replace(chunk, text=text, start=chunk.start + start, end=chunk.start + end)))
    return list(narrowed.values())


def within(candidates: Sequence[Candidate], words: int) -> list[Candidate]:
    """Return the first candidates whose texts have at most `words` words together; at least the first."""
    kept, total = list[Candidate](), 0
    for candidate in candidates:
        total += len(candidate.chunk.text.split())
        if kept and total > words:
            break
        kept.append(candidate)
    return kept


def edges_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates with the best at both ends: a model reads the middle of a long context least."""
    return [*candidates[::2], *reversed(candidates[1::2])]


def _best(text: str, weights: dict[str, float], words: int) -> tuple[int, int]:
    """Return the range with the most weight; of equals the first and, from there, the longest."""
    ranges, best, chosen = sentences(text), -1.0, (0, len(text))
    for first, (start, _) in enumerate(ranges):
        for last, (_, end) in enumerate(ranges[first:], start=first):
            if last > first and len(text[start:end].split()) > words:
                break
            found = stems(text[start:end])
            score = sum(weight for stem, weight in weights.items() if stem in found)
            if score > best or (score == best and start == chosen[0]):
                best, chosen = score, (start, end)
    return chosen
