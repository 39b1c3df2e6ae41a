"""Files of every format: what is kept of them, and what is refused, with which code."""

import io
import random
import zipfile
from collections.abc import Iterator

import pytest
from files import PAGE, bomb, pdf, reviewed, word

from ingestor.parsing.isolated import DocumentError, DocumentParser
from ingestor.parsing.parsed import Format, Limits

LINES = [
    (24.0, "Refund rules"),
    (16.0, "How long"),
    (11.0, "Refunds take five busi-"),
    (11.0, "ness days and no more."),
    (8.0, "Page {page}"),
]


@pytest.fixture(scope="module")
def parser() -> Iterator[DocumentParser]:
    """Return a parser with small limits."""
    parser = DocumentParser(Limits(file_bytes=1 << 20, text_characters=100_000, pages=20, unpacked_bytes=8 << 20), timeout_seconds=20)
    yield parser
    parser.close()


def _code(parser: DocumentParser, data: bytes, name: str, content_type: str = "") -> str:
    with pytest.raises(DocumentError) as caught:
        parser.parse(data, name, content_type)
    return caught.value.code


def test_markdown_keeps_its_text_and_its_front_matter(parser: DocumentParser) -> None:
    """The fields before the text are read, dates as text; the first heading is the title."""
    parsed = parser.parse(b"---\neffective_from: 2025-03-01\nlabels: [staff]\n---\n# The rule\r\n\n| a |\n|---|\n", "rules/rule.md")
    assert (parsed.format, parsed.title, parsed.text) == (Format.MARKDOWN, "The rule", "# The rule\n\n| a |\n|---|\n")
    assert parsed.fields == {"effective_from": "2025-03-01", "labels": ["staff"]}


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("Some words.\n\n## The rule ##\n", "The rule"),
        ("# About C#\n", "About C#"),
        ("#hashtag\n```\n# a comment\n```\n# Rule\n", "Rule"),
        ("# \n\nNo heading.", "page"),
    ],
)
def test_the_first_heading_is_the_title(parser: DocumentParser, page: str, title: str) -> None:
    """Wherever it stands, but not within code."""
    assert parser.parse(page.encode(), "page.md").title == title


def test_numbers_of_a_front_matter_stay_as_they_are_written(parser: DocumentParser) -> None:
    """Version 1.10 is not 1.1, nor is 010 eight."""
    fields = parser.parse(b"---\nversion: 1.10\nmetadata: {floor: 010, open: 7:30, new: true}\n---\nText.", "a.md").fields
    assert fields == {"version": "1.10", "metadata": {"floor": "010", "open": "7:30", "new": True}}


def test_a_title_stays_short(parser: DocumentParser) -> None:
    """It stands before each piece of its text, so that a first line as long as the file must not become it."""
    line = "# " + "refunds " * 10_000
    parsed = parser.parse(line.encode(), "a.md")
    assert len(parsed.title) < 310
    assert parsed.title.endswith("refunds …")
    assert parsed.text == line


def test_a_page_is_what_a_reader_sees(parser: DocumentParser) -> None:
    """Headings, lists, tables and code are kept; scripts, styles, comments, menus and hidden text are not."""
    parsed = parser.parse(PAGE, "page.html")
    assert (parsed.format, parsed.title, parsed.metadata) == (Format.HTML, "Refund rules", {"author": "A. Writer", "language": "en"})
    assert parsed.text == (
        "# Refunds\n\nRefunds take five days, not `ten`.\n\n- Keep the receipt\n  - on paper\n- Bring a card\n\nHow long\n\n"
        "| Kind | Days |\n| --- | --- |\n| Card \\| cash | 5 |\n\n```py\nif late:\n\n    refund()\n```\n\nLast words."
    )


def test_cells_stay_under_their_columns(parser: DocumentParser) -> None:
    """A cell that spans rows stands in each of them, one that spans columns leaves the others empty; lists within lists are read once."""
    page = b"<table><tr><th rowspan=2>City</th><th colspan=2>Fee</th></tr><tr><th>Day</th><th>Night</th></tr>"
    page += b"<tr><td rowspan='2'>Bonn</td><td>1</td><td>2</td></tr><tr><td>3</td></tr></table>"
    page += b"<dl><div><dt>Card</dt><dd>Five days.<dl><dt>Late</dt><dd>Ten.</dd></dl></dd></div></dl>" + b"<dl><dd>" * 60 + b"end"
    text = parser.parse(page, "a.html").text
    assert text.split("\n\n")[0] == ("| City | Fee |  |\n| --- | --- | --- |\n| City | Day | Night |\n| Bonn | 1 | 2 |\n| Bonn | 3 |  |")
    assert "- Card: Five days. - Late: Ten." in text
    assert text.count("end") == text.count("Late") == 1


def test_a_pdf_has_headings_by_size_and_no_page_numbers(parser: DocumentParser) -> None:
    """Lines are joined, also over a hyphen; what stands on every page alike is dropped."""
    parsed = parser.parse(pdf(LINES, title="Rules of refunds"), "rules.pdf")
    assert (parsed.format, parsed.title) == (Format.PDF, "Rules of refunds")
    assert parsed.metadata == {"author": "A. Writer", "date": "2024-03-01"}
    assert parsed.text.startswith("# Refund rules\n\n## How long\n\nRefunds take five business days and no more.")
    lines = [(9.0, "Acme rules"), (11.0, "One thing about {page}."), (11.0, "The same on all."), (8.0, "Page {page}")]
    pages = parser.parse(pdf(lines, pages=4), "rules.pdf")
    assert pages.title == "rules"
    assert "Page" not in pages.text
    assert "Acme" not in pages.text
    assert pages.text.count("The same on all.") == 4


def test_a_word_document_keeps_its_structure(parser: DocumentParser) -> None:
    """Styles become headings, lists and code; a table stays a table."""
    parsed = parser.parse(word(), "rules.docx")
    assert (parsed.format, parsed.title, parsed.metadata["author"]) == (Format.DOCX, "Refund rules", "A. Writer")
    assert parsed.text == (
        "# Refund rules\n\nRefunds take five days.\n\n- Keep the receipt\n- Bring a card\n\n| Kind | Days |\n| --- | --- |\n"
        "| Card \\| cash | 5 |\n\n## Appendix\n\n```\nif late:\n    refund()\n```"
    )


def test_a_word_document_is_what_a_reader_sees(parser: DocumentParser) -> None:
    """What moved is where it moved to, a box is there once, what wraps a row or a paragraph hides nothing, and hidden text is not there."""
    text = parser.parse(reviewed(), "reviewed.docx").text
    assert text == "Before.In a box.\n\nNew.\n\nMoved.\n\n| Days |\n| --- |\n| five |\n\nWrapped."


def test_text_in_another_encoding_is_found_out(parser: DocumentParser) -> None:
    """Bytes of Windows and UTF-16 with its mark become text."""
    sentence = "Rückgaben dauern fünf Tage, Gebühren fallen keine an. " * 5
    assert parser.parse(sentence.encode("cp1252"), "a.txt").text == sentence
    assert parser.parse(sentence.encode("utf-16"), "a.txt").text == sentence
    for western in ("café", "Größe", "£5 fee", "Übergröße äöü", "Prix : 5 €, déjà payé", "smörgåsbord", "“naïve” – señor’s"):  # noqa: RUF001
        assert parser.parse(western.encode("cp1252"), "a.txt").text == western
    for encoding, other in (
        ("cp1251", "Возврат занимает пять дней. "),
        ("shift_jis", "返金には五日かかります。テスト"),
        ("cp1253", "Τα χρήματα "),  # noqa: RUF001
    ):
        assert parser.parse((other * 20).encode(encoding), "a.txt").text == other * 20
    assert parser.parse(b"end of one\x0cpage", "a.txt").text == "end of one\npage"


@pytest.mark.parametrize(
    ("name", "content_type", "expected"),
    [
        ("upload", "application/pdf", Format.PDF),
        ("upload", "", Format.PDF),
        ("upload.unknown", "text/plain", Format.PDF),
    ],
)
def test_content_tells_what_a_name_does_not(parser: DocumentParser, name: str, content_type: str, expected: Format) -> None:
    """The first bytes decide where they are clear."""
    assert parser.parse(pdf(LINES), name, content_type).format is expected


def _truncated_archive() -> bytes:
    return word()[:-200]


def _no_word() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../../etc/passwd", "root")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "name", "code"),
    [
        (b"%PDF-1.7\n" + random.Random(7).randbytes(3000), "a.pdf", "unreadable_document"),
        (pdf(LINES)[:400], "a.pdf", "unreadable_document"),
        (b"no pdf at all", "a.pdf", "unreadable_document"),
        (pdf(LINES, encrypt=True), "a.pdf", "encrypted_document"),
        (pdf([]), "scan.pdf", "document_without_text"),
        (pdf(LINES, pages=21), "a.pdf", "document_too_large"),
        (pdf(LINES), "a.txt", "binary_as_text"),
        (word(), "a.md", "binary_as_text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a.txt", "binary_as_text"),
        (b"text\x00\x01\x02" * 50, "a.md", "binary_as_text"),
        (random.Random(7).randbytes(5000), "a.html", "binary_as_text"),
        (b"\xff\xfe\x00", "a.txt", "unreadable_document"),
        (b"PK\x05\x06" + bytes(18), "a.docx", "unreadable_document"),
        (_truncated_archive(), "a.docx", "unreadable_document"),
        (_no_word(), "a.docx", "unreadable_document"),
        (_no_word(), "a.zip", "unsupported_document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a.docx", "encrypted_document"),
        (b"a,b\n1,2\n", "a.csv", "unsupported_document"),
        (b"---\ntitle: [\n---\ntext", "a.md", "unreadable_document"),
        (b"---\na: &a [x, x]\nb: [*a, *a]\n---\ntext", "a.md", "unreadable_document"),
        (b"", "a.md", "document_without_text"),
        (b"<html><script>x</script></html>", "a.html", "document_without_text"),
        (b"x " * 60_000, "a.txt", "document_too_large"),
        (bytes(2 << 20), "a.txt", "document_too_large"),
        (bomb(9 << 20), "a.docx", "document_too_large"),
    ],
)
def test_a_bad_file_has_one_clear_error(parser: DocumentParser, data: bytes, name: str, code: str) -> None:
    """Each kind of damage has its code, and the message names the file."""
    assert _code(parser, data, name) == code


def test_deep_nesting_ends_in_text_or_an_error(parser: DocumentParser) -> None:
    """Tags that nest a hundred thousand deep neither hang nor end the reader."""
    page = b"<div><b>" * 60_000 + b"deep" + b"</b></div>" * 10
    try:
        assert "deep" in parser.parse(page, "a.html").text
    except DocumentError as error:
        assert error.code in {"unreadable_document", "document_without_text"}  # noqa: PT017 - either is right
    assert parser.parse(b"still here", "a.txt").text == "still here"


def test_a_file_that_hangs_the_reader_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the deadline the process is ended and the next file gets a new one."""
    parser = DocumentParser(timeout_seconds=0.001)
    with pytest.raises(DocumentError, match="longer than"):
        parser.parse(b"text", "a.txt")
    parser._timeout = 20.0
    assert parser.parse(b"text", "a.txt").text == "text"
    assert parser._process is not None
    parser._process.kill()
    parser._process.wait()
    assert parser.parse(b"more", "a.txt").text == "more"
    parser.close()
