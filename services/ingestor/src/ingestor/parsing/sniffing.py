"""Tells what a file is: by its first bytes where they are clear, else by its name, else by its stated media type."""

import io
import re
import zipfile
from pathlib import PurePosixPath

from ingestor.parsing.parsed import Format, UnparsableError, unreadable

SUFFIXES = {
    ".md": Format.MARKDOWN,
    ".markdown": Format.MARKDOWN,
    ".html": Format.HTML,
    ".htm": Format.HTML,
    ".xhtml": Format.HTML,
    ".pdf": Format.PDF,
    ".docx": Format.DOCX,
    ".txt": Format.TEXT,
    ".text": Format.TEXT,
}
_MEDIA_TYPES = {
    "text/markdown": Format.MARKDOWN,
    "text/html": Format.HTML,
    "application/xhtml+xml": Format.HTML,
    "application/pdf": Format.PDF,
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": Format.DOCX,
    "text/plain": Format.TEXT,
}
_BINARY = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"\x1f\x8b": "gzip data",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"{\\rtf": "an RTF document",
    b"%!PS": "PostScript",
    b"SQLite format 3": "a database",
}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HTML = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_TEXTS = (Format.MARKDOWN, Format.TEXT)


def format_of(data: bytes, name: str, content_type: str = "") -> Format:
    """Return the format of a file; raise UnparsableError for one that is not read or is not what its name says."""
    suffix = PurePosixPath(name).suffix.lower()
    media_type = content_type.partition(";")[0].strip().lower()
    named = SUFFIXES.get(suffix) or (None if suffix else _MEDIA_TYPES.get(media_type))
    found = _by_content(data, named)
    if found in {Format.PDF, Format.DOCX}:
        if named in {*_TEXTS, Format.HTML}:
            raise UnparsableError("binary_as_text", f"{name!r} is named as text and is a {found} document")
        return found
    if named in {Format.PDF, Format.DOCX}:
        raise unreadable(f"{name!r} is not a {named} document")
    if named is None and found is None and any(letter.isalpha() for letter in suffix):
        raise UnparsableError("unsupported_document", f"{name!r}: unknown kind of file; known: {sorted(SUFFIXES)}")
    return named or found or Format.TEXT


def _by_content(data: bytes, named: Format | None) -> Format | None:
    if data[:1024].lstrip()[:5] == b"%PDF-":
        return Format.PDF
    if data[:4] == b"PK\x03\x04":
        return _archive(data, named)
    if data[:8] == _OLE:
        if named is Format.DOCX:
            raise UnparsableError("encrypted_document", "the document is protected by a password, or is an old Word file; save it as .docx")
        _refuse("an old Office document", named)
    for magic, what in _BINARY.items():
        if data.startswith(magic) and not _is_prose(data, magic):
            _refuse(what, named)
    return Format.HTML if _HTML.match(data[:4096]) else None


def _is_prose(data: bytes, magic: bytes) -> bool:
    """Return whether data begins with the letters of a magic number and goes on as text."""
    return magic in {b"MZ", b"BZh", b"GIF8", b"Rar!", b"%!PS"} and b"\x00" not in data[:512] and data[:512].isascii()


def _archive(data: bytes, named: Format | None) -> Format:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if "word/document.xml" in archive.namelist():
                return Format.DOCX
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        if named is Format.DOCX:
            raise unreadable(f"the document is damaged: {error}") from error
    if named is Format.DOCX:
        raise unreadable("the file is an archive and no Word document")
    return _refuse("an archive", named)


def _refuse(what: str, named: Format | None) -> Format:
    if named in {*_TEXTS, Format.HTML}:
        raise UnparsableError("binary_as_text", f"the file is named as text and is {what}")
    if named is not None:
        raise unreadable(f"the file is named as {named} and is {what}")
    raise UnparsableError("unsupported_document", f"the file is {what}; known: {sorted(SUFFIXES)}")
