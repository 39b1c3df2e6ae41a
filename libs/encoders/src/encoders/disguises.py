"""Reads text that was written so that a program does not understand it: other alphabets of code, turned letters, digits for letters."""

import codecs
import html
import re
from collections.abc import Iterator
from urllib.parse import unquote

# The commonest words of English and of orders to an assistant: enough to tell language from noise.
_COMMON = frozenset(
    [
        "a",
        "about",
        "above",
        "act",
        "after",
        "all",
        "also",
        "am",
        "an",
        "and",
        "answer",
        "any",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "do",
        "does",
        "every",
        "everything",
        "first",
        "for",
        "forget",
        "from",
        "get",
        "give",
        "go",
        "had",
        "has",
        "have",
        "here",
        "how",
        "i",
        "if",
        "ignore",
        "important",
        "in",
        "instruction",
        "instructions",
        "into",
        "is",
        "it",
        "its",
        "just",
        "know",
        "let",
        "like",
        "make",
        "me",
        "message",
        "mode",
        "my",
        "new",
        "no",
        "not",
        "now",
        "of",
        "on",
        "only",
        "or",
        "other",
        "out",
        "output",
        "password",
        "please",
        "previous",
        "print",
        "prompt",
        "put",
        "repeat",
        "reply",
        "respond",
        "reveal",
        "rules",
        "say",
        "secret",
        "send",
        "should",
        "show",
        "so",
        "system",
        "tell",
        "text",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "time",
        "to",
        "up",
        "us",
        "use",
        "user",
        "was",
        "we",
        "what",
        "when",
        "which",
        "who",
        "why",
        "will",
        "with",
        "word",
        "words",
        "write",
        "you",
        "your",
    ]
)
_PUNCTUATION = ".,;:!?()[]\"'"
_LEET = str.maketrans("013457@$!+€|", "oieastasitel")
_LEET_WORD = re.compile(r"(?<!\S)(?=\S*[a-zA-Z])(?=\S*[013457@$!+€|])[\w@$!+€|]{2,}(?=[\s.,;:?!]|$)")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2}){3,}|%20")
_ENTITY = re.compile(r"&(?:#x?[0-9A-Fa-f]{2,6}|lt|gt|amp|quot|nbsp);")
_BINARY = re.compile(r"(?<![01])(?:[01]{8}[ ]?){6,}(?![01])")
_ESCAPED = re.compile(r"(?:\\x[0-9A-Fa-f]{2}){6,}|(?:\\u[0-9A-Fa-f]{4}){6,}")
_LEAST_WORDS = 4
_LEAST_SHARE = 0.3
_GAIN = 0.2


def common_share(text: str) -> float:
    """Return the share of words that are among the commonest of English; 0.0 for fewer than four words."""
    words = [word for part in text.lower().split() if (word := part.strip(_PUNCTUATION))]
    return sum(word in _COMMON for word in words) / len(words) if len(words) >= _LEAST_WORDS else 0.0


def readings(text: str) -> Iterator[str]:
    """Yield what else `text` may say: unescaped, from binary, turned around, rotated by thirteen, with letters for digits."""
    if _PERCENT.search(text) and (found := unquote(text)) != text:
        yield found
    if _ENTITY.search(text) and (found := html.unescape(text)) != text:
        yield found
    for match in _ESCAPED.finditer(text):
        yield match[0].encode("ascii").decode("unicode_escape", errors="replace")
    for match in _BINARY.finditer(text):
        bits = match[0].replace(" ", "")
        yield bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits) - 7, 8)).decode("utf-8", errors="replace")
    for line in text.splitlines():
        yield from _better(line, line[::-1])
        yield from _better(line, codecs.encode(line, "rot13"))
    yield from _without_leet(text)


def _better(line: str, other: str) -> Iterator[str]:
    share = common_share(other)
    if share >= _LEAST_SHARE and share >= common_share(line) + _GAIN:
        yield other


def _without_leet(text: str) -> Iterator[str]:
    plain = _LEET_WORD.sub(lambda match: match[0].translate(_LEET), text)
    if plain != text and common_share(plain) > common_share(text):
        yield plain
