"""What tells good candidates from bad ones, each signal exact for every candidate of either leg."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retriever.fusion import Candidate
from retriever.words import Words, figures, passage_words, words

Column = NDArray[np.float64]
Places = NDArray[np.int64]

# What both engines count with; the leg's own scores are read back with these.
_ENGINE_SATURATION, _ENGINE_LENGTH = 1.2, 0.75
_USUAL_RARITY = 5.0
_LEAST_RARITY, _MOST_RARITY = 0.05, 12.0
_DAMPING = 0.5
# Where a candidate whose cosine is not known lies, from the worst known one (0) to the best (1).
_NOT_FOUND = -0.15


@dataclass(frozen=True)
class Counts:
    """How often each word of a query (columns) is in each candidate (rows), and where words follow each other."""

    query: Column
    text: Column
    title: NDArray[np.bool_]
    lengths: Column
    pairs: NDArray[np.bool_]
    pair_words: Places
    pair_query: Column
    figures: NDArray[np.bool_]
    other_title_words: Column


def count(query: str, candidates: Sequence[Candidate]) -> Counts:
    """Count the words of a query in its candidates."""
    vocabulary, places, repeats = np.unique(words(query), return_inverse=True, return_counts=True)
    size = len(vocabulary)
    read = [passage_words(candidate.chunk.title, candidate.chunk.text) for candidate in candidates]
    rows, known, which = _found(vocabulary, [text for _, text in read])
    asked, pair_repeats = np.unique(places[:-1] * size + places[1:], return_counts=True)
    both = known[:-1] & known[1:] & (rows[:-1] == rows[1:])
    title_rows, title_known, title_which = _found(vocabulary, [heading for heading, _ in read])
    return Counts(
        query=repeats.astype(np.float64),
        text=_table(rows[known], which[known], len(read), size),
        title=_table(title_rows[title_known], title_which[title_known], len(read), size) > 0,
        lengths=np.bincount(rows, minlength=len(read)).astype(np.float64),
        pairs=_pairs(asked, rows[:-1][both], which[:-1][both] * size + which[1:][both], len(read)),
        pair_words=np.stack([asked // max(size, 1), asked % max(size, 1)]),
        pair_query=pair_repeats.astype(np.float64),
        figures=np.isin(vocabulary, figures(query)),
        other_title_words=np.bincount(title_rows[~title_known], minlength=len(read)).astype(np.float64),
    )


def _found(vocabulary: Words, texts: Sequence[Words]) -> tuple[Places, NDArray[np.bool_], Places]:
    """Return of every word of all texts: the text it is in, whether the query has it, and its place in the vocabulary."""
    rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    every = np.concatenate(texts)
    if not len(vocabulary):
        return rows, np.zeros(len(every), dtype=np.bool_), np.zeros(len(every), dtype=np.int64)
    which = np.minimum(np.searchsorted(vocabulary, every), len(vocabulary) - 1)
    return rows, vocabulary[which] == every, which


def _table(rows: Places, columns: Places, height: int, width: int) -> Column:
    """Return how often each pair of row and column is there (height, width)."""
    return np.bincount(rows * width + columns, minlength=height * width).reshape(height, width).astype(np.float64)


def _pairs(asked: Places, rows: Places, codes: Places, height: int) -> NDArray[np.bool_]:
    """Return which of the pairs that the query has are in which candidate (height, pairs)."""
    there = np.zeros((height, len(asked)), dtype=np.bool_)
    if len(asked):
        where = np.minimum(np.searchsorted(asked, codes), len(asked) - 1)
        hit = asked[where] == codes
        there[rows[hit], where[hit]] = True
    return there


def rarity(counts: Counts, scores: Column) -> Column:
    """Return how rare each word of the query is in the index, read back from the lexical leg's own scores (candidates,).

    BM25 is linear in the rarities, so the leg's scores give them away: ridge regression towards a usual value. No statistics of
    the index have to be kept, and only what the caller may see is looked at. Candidates with score 0 were not found by the leg.
    """
    usual = np.full(len(counts.query), _USUAL_RARITY)
    found = scores > 0
    if not found.any():
        return usual
    weights = _saturated(counts, _ENGINE_SATURATION, _ENGINE_LENGTH)[found] * counts.query
    gram = weights @ weights.T
    gram[np.diag_indices_from(gram)] += _DAMPING
    solved = usual + weights.T @ np.linalg.solve(gram, scores[found] - weights @ usual)
    return np.clip(solved, _LEAST_RARITY, _MOST_RARITY)


def bm25(counts: Counts, rarities: Column, saturation: float, length: float) -> Column:
    """Return BM25 of every candidate."""
    result: Column = _saturated(counts, saturation, length) @ (rarities * counts.query)
    return result


def _saturated(counts: Counts, saturation: float, length: float) -> NDArray[np.float64]:
    relative = counts.lengths / max(counts.lengths.mean(), 1.0)
    norm = saturation * (1 - length + length * relative)
    result: NDArray[np.float64] = counts.text * (saturation + 1) / (counts.text + norm[:, None])
    return result


def title_coverage(counts: Counts, rarities: Column) -> Column:
    """Return which share of a title the query says, by rarity; 0 without a title."""
    said = counts.title @ rarities
    whole = said + counts.other_title_words * _USUAL_RARITY
    return np.divide(said, whole, out=np.zeros_like(said), where=whole > 0)


def title_match(counts: Counts, rarities: Column) -> Column:
    """Return how much of the query the title has, by rarity and repeats."""
    result: Column = counts.title @ (rarities * counts.query)
    return result


def pairs(counts: Counts, rarities: Column) -> Column:
    """Return how many neighbouring words of the query are neighbours in the candidate, by rarity and repeats."""
    result: Column = counts.pairs @ (rarities[counts.pair_words].sum(axis=0) * counts.pair_query)
    return result


def figure_coverage(counts: Counts) -> Column:
    """Return the share of the query's amounts, codes and names with digits that a candidate has; 0 without any."""
    if not counts.figures.any():
        return np.zeros(len(counts.lengths))
    result: Column = (counts.text[:, counts.figures] > 0).mean(axis=1)
    return result


def cosines(candidates: Sequence[Candidate]) -> Column:
    """Return the cosine of every candidate; a guess where it is not known."""
    known = np.array([candidate.vector for candidate in candidates])
    found = known != 0
    if found.any() and not found.all():
        low, high = known[found].min(), known[found].max()
        known[~found] = low + _NOT_FOUND * (high - low)
    return known


def scaled(values: Column) -> Column:
    """Return the values from 0 to 1; equal ones are all 1, or 0 where they are."""
    low, high = values.min(), values.max()
    if high > low:
        result: Column = (values - low) / (high - low)
        return result
    return np.full_like(values, float(high > 0))
