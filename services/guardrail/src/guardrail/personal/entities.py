"""Reads entities off spaCy's trained recogniser: the same weights and moves as its own parser, a matrix product for all tokens at once.

spaCy's parser asks for the interpreter's lock after every single move that it weighs, some eighty a token: that is most of its time,
and it makes every other thread of the process wait. Outside of an entity a move depends on the token alone, so that those can all be
scored together; only the tokens of an entity need a step each. Source: spaCy 3.8, `parser_model.pyx` and `ner.pyx`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc, Span

_Floats = NDArray[np.float32]
_FEATURES = 3
_NEVER = np.float32(-np.inf)


class EntityDecoder:
    """Finds the entities that `spacy.pipeline.EntityRecognizer` finds by its greedy parser."""

    def __init__(self, recogniser: Any) -> None:
        """Take over a loaded `EntityRecognizer`; raise ValueError for one of another architecture."""
        model = recogniser.model
        lower, upper = model.get_ref("lower"), model.get_ref("upper")
        if recogniser.cfg["beam_width"] != 1 or lower.get_dim("nF") != _FEATURES or not upper.has_param("W"):
            raise ValueError("an entity recogniser with a greedy parser, three features and an upper layer is needed")
        self._vectors = model.get_ref("tok2vec")
        # (features * hidden * pieces, width) of what a token adds to a state in each of the three roles.
        self._lower: _Floats = lower.get_param("W").reshape(-1, lower.get_dim("nI")).T.copy()
        self._pieces: int = lower.get_dim("nP")
        pad: _Floats = lower.get_param("pad").reshape(_FEATURES, -1)
        self._bias: _Floats = lower.get_param("b").reshape(-1)
        self._outside: _Floats = self._bias + pad[1] + pad[2]
        self._upper: _Floats = upper.get_param("W").T.copy()
        self._upper_bias: _Floats = upper.get_param("b").copy()
        self._upper_bias[list(model.attrs.get("unseen_classes") or ())] = _NEVER
        self._moves: list[tuple[str, str]] = [
            (name[0], name[2:]) for name in map(recogniser.moves.get_class_name, range(recogniser.moves.n_moves))
        ]  # fmt: skip
        self._place = {move: place for place, move in enumerate(self._moves)}
        # "U-" without a label is for tokens that somebody has barred before.
        self._first = np.array([kind == "O" or (kind in "BU" and bool(label)) for kind, label in self._moves])
        self._out = np.array([kind == "O" for kind, _ in self._moves])
        self._begins = np.array([kind == "B" for kind, _ in self._moves])

    def entities(self, doc: Doc) -> list[Span]:
        """Return the entities of a tokenised text, in their order."""
        if not len(doc):
            return []
        states = (self._vectors.predict([doc]) @ self._lower).reshape(len(doc), _FEATURES, -1)
        scores = self._scores(states[:, 0] + self._outside)
        scores[:, ~self._first] = _NEVER
        scores[-1, self._begins] = _NEVER
        scores[np.ix_([token.is_space for token in doc], ~self._out)] = _NEVER
        found, end = list[Span](), 0
        best = scores.argmax(1)
        for start in np.flatnonzero(~self._out[best]).tolist():
            if start >= end:
                kind, label = self._moves[best[start]]
                end = start + 1 if kind == "U" else self._end(states, start, label)
                found.append(Span(doc, start, end, label=label))
        return found

    def _end(self, states: _Floats, start: int, label: str) -> int:
        """Return where an entity that begins at `start` ends: at its last move, or with the text."""
        inside, last = self._place["I", label], self._place["L", label]
        for place in range(start + 1, len(states) - 1):
            scores = self._scores(states[place, 0] + states[start, 1] + states[place - 1, 2] + self._bias)
            # The first of equal moves is taken.
            if (scores[last], -last) > (scores[inside], -inside):
                return place + 1
        return len(states)

    def _scores(self, states: _Floats) -> _Floats:
        """Return the score of every move in each state of (..., hidden * pieces)."""
        hidden = states.reshape(*states.shape[:-1], -1, self._pieces).max(-1)
        scores: _Floats = hidden @ self._upper + self._upper_bias
        return scores
