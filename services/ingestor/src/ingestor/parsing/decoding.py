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
# The end of a page is one of a line, too.
_LINE_ENDS = re.compile(r"\r\n|[\r\x0b\x0c]")
_SAMPLE = 256 * 1024
_ABOVE_ASCII = re.compile(rb"[\x80-\xff]+")
# The euro, quotation marks, dashes and the few letters that the code page of Windows has before its others.
_WESTERN = frozenset([0x80, 0x82, 0x84, 0x85, 0x8A, 0x8C, 0x8E, *range(0x91, 0x98), 0x99, 0x9A, 0x9C, 0x9E, 0x9F, *range(0xA0, 0x100)])
# These are read with their mark alone: any two bytes are a sign in them.
_MARKED = ["utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le", "utf_7"]


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
    western = _is_western(data[:_SAMPLE])
    found = None if western else from_bytes(data[:_SAMPLE], cp_exclusion=_MARKED).best()
    if western or (found is not None and all("Latin" in alphabet for alphabet in found.alphabets)):
        # Western code pages look alike to statistics, which short texts mislead anyway; the web takes them all for this one.
        try:
            return _clean(data.decode("cp1252"))
        except UnicodeDecodeError:
            found = found or from_bytes(data[:_SAMPLE], cp_exclusion=_MARKED).best()
    if found is None:
        raise UnparsableError("binary_as_text", "the file is in no known encoding of text")
    return _clean(_as(data, found.encoding))


def _is_western(sample: bytes) -> bool:
    """Return whether the bytes above ASCII are letters of the West that stand alone among others, or signs of typography."""
    runs = _ABOVE_ASCII.findall(sample)
    return sum(map(len, runs)) <= 2 * len(runs) and all(byte in _WESTERN for run in runs for byte in run)


def _as(data: bytes, name: str) -> str:
    try:
        return data.decode(name)
    except UnicodeDecodeError as error:
        raise unreadable(f"the text is damaged: {error}") from error


def _clean(text: str) -> str:
    return _CONTROL_CHARACTERS.sub("", _LINE_ENDS.sub("\n", text))
