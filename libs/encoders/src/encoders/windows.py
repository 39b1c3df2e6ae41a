"""Cuts texts into the parts that attack and safety heads look at: a user's text in long pieces, data by sentence."""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from encoders.normalise import NormalisedText
from encoders.sentences import split_sentences

USER, DOCUMENT, TOOL = "user", "document", "tool"
CHANNELS = (USER, DOCUMENT, TOOL)
_LONGEST = 900
_STEP = 700
_FEW = 64
_SHORTEST = 12
_NESTED = 60_000
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)+)(?:"|$)')
_KEY = re.compile(r"^[\s\-*>|]*[\"']?[A-Za-z_][\w \-]{0,30}[\"']?\s*:\s+(?=\S)")


def parts_of(found: NormalisedText, channel: str) -> Sequence[str]:
    """Return what is scored of a normalised text; never empty, and together the parts cover it, however long it is."""
    if channel == USER:
        return _pieces([found.text, *found.decoded])
    sentences = list(dict.fromkeys(_sentences(found)))
    return _packed(sentences) or _cut(found.text)


def _pieces(texts: Sequence[str]) -> list[str]:
    """Return every text whole and, where it is long, in overlapping pieces."""
    parts: list[str] = []
    for text in texts:
        parts.append(text)
        if len(text) > _LONGEST:
            parts.extend(_cut(text))
    return parts


def _cut(text: str) -> list[str]:
    """Return `text` in overlapping pieces, a short one as it is."""
    return [text[start : start + _LONGEST] for start in range(0, max(1, len(text) - _LONGEST + _STEP), _STEP)]


def _sentences(found: NormalisedText) -> Iterator[str]:
    for text in (*_strings(found.text), *found.decoded):
        for sentence in split_sentences(text):
            said = _KEY.sub("", sentence)
            if len(said) >= _SHORTEST and _language(said):
                yield from _cut(said)


def _language(text: str) -> bool:
    # Two words of Latin letters, or a script that writes without spaces.
    return text.count(" ") >= 1 or not text.isascii()


def _packed(sentences: Sequence[str]) -> list[str]:
    """Return the sentences, neighbours joined where there are many, as far as they fit a part."""
    size = -(-len(sentences) // _FEW)
    packs: list[list[str]] = []
    room = 0
    for sentence in sentences:
        if packs and len(packs[-1]) < size and len(sentence) < room:
            packs[-1].append(sentence)
            room -= len(sentence) + 1
        else:
            packs.append([sentence])
            room = _LONGEST - len(sentence)
    return [" ".join(pack) for pack in packs]


def _strings(text: str) -> Iterator[str]:
    """Yield the texts inside JSON or a Python literal, else the text itself."""
    stripped = text.strip()
    if stripped[:1] in {"{", "["} and len(stripped) <= _NESTED:
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(stripped)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            yield from _leaves(value)
            return
        # What was cut off or is not quite JSON still shows its strings.
        yield from _QUOTED.findall(stripped)
    yield text


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str) and " " in key:
                yield key
            yield from _leaves(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _leaves(item)
