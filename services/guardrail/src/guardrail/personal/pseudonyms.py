"""Puts pseudonyms in the place of personal data, the same one for the same value, and back."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from guardrail.personal.detection import Mention

TOKEN = re.compile(r"<[A-Z_]+_\d{1,4}>")


@dataclass
class Pseudonyms:
    """Hands out `<TYPE_n>` for values; numbers that the texts already use are never handed out."""

    taken: frozenset[str] = frozenset()
    values: dict[str, str] = field(default_factory=dict)
    _by_value: dict[tuple[str, str], str] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)
    _last: dict[str, int] = field(default_factory=dict)

    @classmethod
    def beside(cls, texts: Iterable[str], known: Mapping[str, str] | None = None) -> "Pseudonyms":
        """Start a mapping for `texts` from what is known; what else looks like a pseudonym in them stays what it is: text."""
        known = known or {}
        new = cls(frozenset(token for text in texts for token in TOKEN.findall(text) if token not in known), dict(known))
        new._by_value = {(token[1:-1].rpartition("_")[0], _folded(value)): token for token, value in known.items()}
        return new

    def token(self, kind: str, value: str) -> str:
        """Return the pseudonym of `value` and count the mention's value once."""
        key = (kind, _folded(value))
        if key not in self._by_value:
            number = self._last.get(kind, 0) + 1
            while (token := f"<{kind}_{number}>") in self.taken or token in self.values:
                number += 1
            self._last[kind] = number
            self._by_value[key] = token
            self.values[token] = value
        self._used.add(self._by_value[key])
        return self._by_value[key]

    @property
    def counts(self) -> dict[str, int]:
        """How many values of each type these texts hold."""
        return dict(Counter(token[1:-1].rpartition("_")[0] for token in sorted(self._used)))

    def replace(self, text: str, mentions: Sequence[Mention]) -> str:
        """Return `text` with a pseudonym for each mention."""
        edits = [Edit(m.start, m.end, self.token(m.type, text[m.start : m.end])) for m in mentions]
        return apply(text, edits)


def _folded(value: str) -> str:
    return " ".join(value.split()).casefold()


@dataclass(frozen=True)
class Edit:
    """A half-open span of characters and what takes its place."""

    start: int
    end: int
    replacement: str


def apply(text: str, edits: Iterable[Edit]) -> str:
    """Return `text` with the edits made; they must not overlap."""
    parts, position = [], 0
    for edit in sorted(edits, key=lambda e: e.start):
        parts += [text[position : edit.start], edit.replacement]
        position = edit.end
    return "".join([*parts, text[position:]])


def moved(position: int, edits: Iterable[Edit]) -> int:
    """Return where a position of the text is after the edits; one inside an edit moves to its end."""
    shift = 0
    for edit in sorted(edits, key=lambda e: e.start):
        if edit.end <= position:
            shift += len(edit.replacement) - (edit.end - edit.start)
        elif edit.start < position:
            return edit.start + shift + len(edit.replacement)
    return position + shift


def restorations(text: str, vault: Mapping[str, str], *, json_text: bool = False) -> list[Edit]:
    """Return the edits that put back what the vault holds, and nothing else; escaped where the text is JSON."""
    found = [(match, vault[match[0]]) for match in TOKEN.finditer(text) if match[0] in vault]
    return [Edit(m.start(), m.end(), json.dumps(value, ensure_ascii=False)[1:-1] if json_text else value) for m, value in found]
