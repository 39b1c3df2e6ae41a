"""Turns texts into arrays of stemmed words, the way the lexical leg sees them."""

import re
import zlib
from functools import lru_cache

import numpy as np
import Stemmer
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_WORD = re.compile(r"[a-z0-9]+")
_STEMMER = Stemmer.Stemmer("english", 0)
# The usual English function words, those of the engines' own lists among them.
_STOP = frozenset(
    """
    a about above after again against all am an and any are as at be because been before being below between both but by can could d did
    do does doing don down during each few for from further had has have having he her here hers herself him himself his how i if in into
    is it its itself just ll m may me might more most must my myself no nor not now of off on once only or other our ours ourselves out
    over own re s same shall she should so some such t than that the their theirs them themselves then there these they this those
    through to too under until up ve very was we were what when where which while who whom why will with would you your yours yourself
    yourselves
    """.split()  # noqa: SIM905 - a list of a hundred literals would hide the words
)
_NOTHING = 0


def words(text: str) -> Words:
    """Return one number per word that is no stop word, in order; words of one stem have the same number."""
    numbers = (_number(word) for word in _WORD.findall(text.lower()))
    return np.fromiter((number for number in numbers if number != _NOTHING), dtype=np.uint32)


def figures(text: str) -> Words:
    """Return the numbers of the words that hold a digit: amounts, codes, names of genes and products."""
    found = {_number(word) for word in _WORD.findall(text.lower()) if any(sign.isdigit() for sign in word)}
    return np.array(sorted(found), dtype=np.uint32)


@lru_cache(maxsize=4096)
def passage_words(title: str, text: str) -> tuple[Words, Words]:
    """Return the distinct words of the title, and all words of title and text; remembered, because passages come back."""
    heading = words(title)
    return np.unique(heading), np.concatenate([heading, words(text)])


@lru_cache(maxsize=200_000)
def _number(word: str) -> int:
    if word in _STOP:
        return _NOTHING
    return zlib.crc32(_STEMMER.stemWord(word).encode()) or 1
