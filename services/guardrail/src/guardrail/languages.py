"""Tells the language of a text by its script and its function words; says nothing where there is too little to go by."""

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

# Languages in Latin letters, by spaCy's lists of function words.
LATIN = ("cs", "da", "de", "en", "es", "fi", "fr", "hu", "id", "it", "nb", "nl", "pl", "pt", "ro", "sv", "tr")
_SCRIPTS: Mapping[str, str] = {
    "el": r"[\u0370-\u03ff\u1f00-\u1fff]",
    "he": r"[\u0590-\u05ff]",
    "ar": r"[\u0600-\u06ff\u0750-\u077f]",
    "hi": r"[\u0900-\u097f]",
    "th": r"[\u0e00-\u0e7f]",
    "ko": r"[\uac00-\ud7af\u1100-\u11ff]",
    "ja": r"[\u3040-\u30ff]",
    "zh": r"[\u4e00-\u9fff]",
    "ru": r"[\u0400-\u04ff]",
}
_PATTERNS = {code: re.compile(pattern) for code, pattern in _SCRIPTS.items()}
LANGUAGES = frozenset({*LATIN, *_SCRIPTS, "uk", "fa"})
_UKRAINIAN, _PERSIAN = re.compile(r"[іїєґІЇЄҐ]"), re.compile(r"[پچژگ]")
_LATIN_LETTER = re.compile(r"[A-Za-z\u00c0-\u024f]")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")
# Code, addresses, pseudonyms and citations are of no language.
_NOISE = re.compile(r"```.*?```|`[^`]*`|https?://\S+|(?<!\S)\S+@\S+|<[A-Z_]+_\d+>|\[\d[\d,\s]*\]", re.DOTALL)
# Letters that few languages write: each word with one speaks for those.
_LETTERS: Mapping[str, tuple[str, ...]] = {
    "ß": ("de",), "äö": ("de", "fi", "sv"), "ü": ("de", "hu", "tr"), "ñ¿¡": ("es",), "ãõ": ("pt",), "å": ("da", "nb", "sv"),
    "øæ": ("da", "nb"), "łąęśżźćń": ("pl",), "řěůďťň": ("cs",), "ščžýí": ("cs",), "őű": ("hu",), "ğıİ": ("tr",), "ş": ("ro", "tr"),
    "țșăţ": ("ro",), "âî": ("fr", "ro"), "ç": ("fr", "pt", "tr"), "èêëùœ": ("fr", "it"), "ìò": ("it",), "óú": ("es", "hu", "pt", "pl"),
}  # fmt: skip
_BY_LETTER = {letter: codes for letters, codes in _LETTERS.items() for letter in letters}
# What spaCy's lists lack of the commonest words.
_MORE: Mapping[str, str] = {
    "en": "want help need please like i'm don't can't what's it's i'd get know way after no not yes may should daily day days",
    "sv": "är och att det som på för med inte jag du han hon vi ni de var en ett från till av om kan ska har",
    "da": "er og at det som på for med ikke jeg du han hun vi de var en et fra til af om kan skal har",
    "es": "el la los las un una y de en que por con para su al del es no se lo como más",
    "tr": "bir ve bu için ile çok da de ne var olan gibi daha olarak değil mi sen ben o",
}
_SECOND = 0.7
_LEAST_SCORE, _LEAST_SHARE = 1.0, 0.08
# Texts without any foreign letter lean to English, which has none.
_ASCII_LEANS = 0.34
_LONGEST = 4000


@lru_cache(maxsize=1)
def _weights() -> Mapping[str, Mapping[str, float]]:
    """Return how much a word speaks for each language: all of it where one alone has it."""
    known: dict[str, list[str]] = defaultdict(list)
    package = find_spec("spacy")
    assert package  # noqa: S101 - a dependency of this service
    languages = Path((package.submodule_search_locations or [""])[0]) / "lang"
    for code in LATIN:
        # Only the list: importing it would compile the rules of its whole language, seconds in all, in the first request.
        words = run_path(str(languages / code / "stop_words.py"))["STOP_WORDS"]
        for word in {part for entry in [*words, *_MORE.get(code, "").split()] for part in entry.lower().split() if len(part) > 1}:
            known[word].append(code)
    return {word: dict.fromkeys(codes, 1 / len(codes)) for word, codes in known.items()}


def language_of(text: str, *, least_words: int = 4) -> str:
    """Return the ISO 639-1 code of a text's language, or nothing below `least_words` words or where two come too near."""
    plain = _NOISE.sub(" ", text[:_LONGEST])
    letters = {code: len(pattern.findall(plain)) for code, pattern in _PATTERNS.items()}
    latin = len(_LATIN_LETTER.findall(plain))
    script, count = max(letters.items(), key=lambda item: item[1])
    if letters["ja"] and letters["ja"] + letters["zh"] > latin:
        return "ja"
    if count > latin:
        return _within(script, plain) if count >= least_words else ""
    words = [word.lower().replace("\u2019", "'") for word in _WORD.findall(plain)]
    return _by_words(words) if len(words) >= least_words else ""


def _within(script: str, text: str) -> str:
    # A short Ukrainian text may have none of its own letters and is then taken for Russian.
    if script == "ru" and _UKRAINIAN.search(text):
        return "uk"
    return "fa" if script == "ar" and _PERSIAN.search(text) else script


def _by_words(words: list[str]) -> str:
    weights = _weights()
    scores: defaultdict[str, float] = defaultdict(float)
    for word in words:
        for part in [word] if word in weights else word.split("'"):
            for code, weight in weights.get(part, {}).items():
                scores[code] += weight
        for codes in {_BY_LETTER[letter] for letter in word if letter in _BY_LETTER}:
            for code in codes:
                scores[code] += 1 / len(codes)
    if all(word.isascii() for word in words):
        scores["en"] += _ASCII_LEANS
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    if not ranked or ranked[0][1] < max(_LEAST_SCORE, _LEAST_SHARE * len(words)):
        return ""
    return ranked[0][0] if len(ranked) == 1 or ranked[1][1] < _SECOND * ranked[0][1] else ""
