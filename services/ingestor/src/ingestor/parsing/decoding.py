"""From bytes to text: what is no text is refused, what is in another encoding is found out."""

import codecs
import re

from charset_normalizer import from_bytes

from ingestor.parsing.parsed import UnparsableError, unreadable

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")
_SAMPLE = 256 * 1024


def decode(data: bytes, charset: str = "") -> str:
    """Return the text with plain line ends; raise UnparsableError for binary data and unknown encodings."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return _clean(_as(data, name))
    if b"\x00" in data or len(_CONTROLS.findall(data[:_SAMPLE])) > len(data[:_SAMPLE]) // 200:
        raise UnparsableError("binary_as_text", "the file holds binary data")
    for name in ("utf-8", charset):
        try:
            return _clean(data.decode(name)) if name else _guess(data)
        except (UnicodeDecodeError, LookupError):
            continue
    return _guess(data)


def _guess(data: bytes) -> str:
    found = from_bytes(data[:_SAMPLE]).best()
    if found is None:
        raise UnparsableError("binary_as_text", "the file is in no known encoding of text")
    if all("Latin" in alphabet for alphabet in found.alphabets):
        # Western code pages look alike to statistics; the web takes them all for this one.
        try:
            return _clean(data.decode("cp1252"))
        except UnicodeDecodeError:
            pass
    return _clean(_as(data, found.encoding))


def _as(data: bytes, name: str) -> str:
    try:
        return data.decode(name)
    except UnicodeDecodeError as error:
        raise unreadable(f"the text is damaged: {error}") from error


def _clean(text: str) -> str:
    return _CONTROL_CHARACTERS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
