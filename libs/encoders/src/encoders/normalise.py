"""Undoes the disguises in which an instruction hides from a classifier: pure functions, no state."""

import base64
import binascii
import re
import unicodedata
from dataclasses import dataclass

from encoders.disguises import readings

_TAG_BASE = 0xE0000
_INVISIBLE = {0x00AD, 0x034F, 0x061C, 0x180E, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F)}
_INVISIBLE |= {*range(0x2060, 0x2070), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
_LOOKALIKES = str.maketrans(
    "аеорсухіјѕԁԛԝһкмтвнАВЕКМНОРСТХУІЈЅαορνικτυΑΒΕΗΙΚΜΝΟΡΤΧΥΖ",
    "aeopcyxijsdqwhkmtbhABEKMHOPCTXYIJSaopviktuABEHIKMNOPTXYZ",
)
_WORD = re.compile(r"\w+")
_LATIN = re.compile(r"[a-zA-Z]")
_ENCODED = re.compile(r"(?<![A-Za-z0-9+/=])(?:[A-Za-z0-9+/]{4}){4,}(?:[A-Za-z0-9+/]{2,3}={0,2})?(?![A-Za-z0-9+/=])")
_HEX = re.compile(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}){12,}(?![0-9A-Fa-f])")
# Two or more marks on one letter are no spelling of any language here.
_STACKED = re.compile(r"[\u0300-\u036f]{2,}")
_SPACED = re.compile(r"(?<!\w)(?:\w[ .\-_*]){4,}\w(?!\w)")
_MOST_DECODED = 8


@dataclass(frozen=True)
class NormalisedText:
    """Readable text, what was decoded out of it, and how many invisible characters it had."""

    text: str
    decoded: tuple[str, ...]
    invisible: int

    def everything(self) -> str:
        """Return the text followed by what was hidden in it."""
        return "\n".join((self.text, *self.decoded))


def normalise(text: str) -> NormalisedText:
    """Return `text` without invisible characters, lookalike letters, spaced words or encodings."""
    plain, tags, invisible = text, "", 0
    if not plain.isascii():
        kept, tags, invisible = _without_invisible(plain)
        plain = _STACKED.sub("", unicodedata.normalize("NFKC", kept))
        plain = _WORD.sub(lambda match: _latin(match[0]), plain)
    plain = _SPACED.sub(lambda match: re.sub(r"[ .\-_*]", "", match[0]), plain)
    decoded = [tags] if tags.strip() else []
    decoded.extend(found for match in _ENCODED.finditer(plain) if (found := _from_base64(match[0])))
    decoded.extend(found for match in _HEX.finditer(plain) if (found := _readable(bytes.fromhex(match[0]))))
    decoded.extend(found for found in readings(plain) if found.strip())
    hidden = list(dict.fromkeys(decoded))
    # Whoever hides one text among many has it read with the others.
    rest = ["\n".join(hidden[_MOST_DECODED:])] if len(hidden) > _MOST_DECODED else []
    return NormalisedText(plain, (*hidden[:_MOST_DECODED], *rest), invisible)


def _without_invisible(text: str) -> tuple[str, str, int]:
    """Return the visible text, the text spelled in tag characters, and the number removed."""
    visible, tags, removed = [], [], 0
    for character in text:
        code = ord(character)
        if _TAG_BASE <= code < _TAG_BASE + 0x80:
            tags.append(chr(code - _TAG_BASE) if code >= _TAG_BASE + 0x20 else "")
            removed += 1
        elif code in _INVISIBLE:
            removed += 1
        else:
            visible.append(character)
    return "".join(visible), "".join(tags).rstrip("\x7f"), removed


def _latin(word: str) -> str:
    # Only mixed words change: a Russian or Greek word stays what it is.
    return word.translate(_LOOKALIKES) if _LATIN.search(word) and not word.isascii() else word


def _from_base64(token: str) -> str | None:
    try:
        return _readable(base64.b64decode(token + "=" * (-len(token) % 4), validate=True))
    except (binascii.Error, ValueError):
        return None


def _readable(content: bytes) -> str | None:
    """Return `content` as text if it reads like language."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    letters = sum(character.isalpha() or character in " .,!?'\n" for character in text)
    return text if letters >= 0.9 * len(text) and " " in text else None
