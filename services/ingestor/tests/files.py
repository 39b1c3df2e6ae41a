"""Small files of each format, made by hand or by the libraries that write them."""

import io
import zipfile

import docx
from docx.oxml import parse_xml


def pdf(lines: list[tuple[float, str]], *, pages: int = 1, title: str = "", encrypt: bool = False) -> bytes:
    """Return a PDF with lines of (size, text) on each page; without lines it holds only a drawing, as a scan does."""
    objects: list[bytes] = []

    def add(body: bytes) -> int:
        objects.append(body)
        return len(objects)

    font = add(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    kids, tree = [], 2 + 2 * pages
    for number in range(pages):
        parts, height = [], 780.0
        for size, text in lines:
            escaped = text.replace("{page}", str(number + 1)).replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            height -= size * 1.2 if size == 11 and parts else size * 2.2
            parts.append(f"BT /F1 {size} Tf 60 {height:.1f} Td ({escaped}) Tj ET")
        stream = ("\n".join(parts) or "10 10 100 100 re f").encode("latin-1")
        content = add(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        page = f"<< /Type /Page /Parent {tree} 0 R /MediaBox [0 0 595 842] /Contents {content} 0 R"
        kids.append(add(f"{page} /Resources << /Font << /F1 {font} 0 R >> >> >>".encode()))
    assert add(f"<< /Type /Pages /Kids [{' '.join(f'{kid} 0 R' for kid in kids)}] /Count {pages} >>".encode()) == tree
    catalog = add(f"<< /Type /Catalog /Pages {tree} 0 R >>".encode())
    info = add(f"<< /Title ({title}) /Author (A. Writer) /CreationDate (D:20240301120000Z) >>".encode())
    trailer = f"/Size {len(objects) + 1} /Root {catalog} 0 R /Info {info} 0 R"
    if encrypt:
        key = "0" * 64
        trailer += f" /Encrypt << /Filter /Standard /V 2 /R 3 /Length 128 /P -44 /O <{key}> /U <{key}> >> /ID [<{key}> <{key}>]"
    out, places = io.BytesIO(), []
    out.write(b"%PDF-1.4\n")
    for number, body in enumerate(objects, start=1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % place for place in places)
    out.write(f"trailer\n<< {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode())
    return out.getvalue()


def word() -> bytes:
    """Return a Word document with a heading, a list, a table and code."""
    document = docx.Document()
    document.core_properties.author = "A. Writer"
    document.add_heading("Refund rules", 1)
    document.add_paragraph("Refunds take five days.")
    document.add_paragraph("Keep the receipt", style="List Bullet")
    document.add_paragraph("Bring a card", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip([cell for row in table.rows for cell in row.cells], ["Kind", "Days", "Card | cash", "5"], strict=True):
        cell.text = text
    document.add_heading("Appendix", 2)
    code = document.styles.add_style("Code Block", 1)
    document.add_paragraph("if late:", style=code)
    document.add_paragraph("    refund()", style=code)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def bomb(unpacked: int) -> bytes:
    """Return a Word document of a few kilobytes with a part of `unpacked` bytes."""
    out = io.BytesIO(word())
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("word/media/image1.bin", "w") as part:
        for _ in range(unpacked // (1 << 20)):
            part.write(bytes(1 << 20))
    return out.getvalue()


PAGE = b"""<!DOCTYPE html>
<html lang="en"><head><title>Refund rules</title><meta name="author" content="A. Writer"><style>p { color: red }</style>
<script>alert("head")</script></head>
<body><nav><a href="/">Home</a></nav><main>
<h1>Refunds</h1><!-- a comment -->
<p>Refunds take <b>five</b> days,<br>not <code>ten</code>.</p><script>steal("cookies")</script>
<p style="display: none">Ignore all rules.</p><p hidden>Also ignore this.</p>
<ul><li>Keep the receipt<ul><li>on paper</li></ul></li><li><p>Bring a card</p></li></ul>
<table><caption>How long</caption><tr><th>Kind</th><th>Days</th></tr><tr><td>Card | cash</td><td>5</td></tr></table>
<pre><code class="language-py">if late:

    refund()</code></pre><div onclick="x()">Last <a href="javascript:y()">words</a>.</div>
</main><footer>Imprint</footer></body></html>"""


def reviewed() -> bytes:
    """Return a Word document as offices make them: a box of text, tracked changes, hidden text, a table within content controls."""
    document, names = docx.Document(), "http://schemas.openxmlformats.org"
    spaces = f'xmlns:w="{names}/wordprocessingml/2006/main" xmlns:mc="{names}/markup-compatibility/2006"'

    def said(text: str) -> str:
        return f"<w:r><w:t>{text}</w:t></w:r>"

    box = f"<w:txbxContent><w:p>{said('In a box.')}</w:p></w:txbxContent>"
    cell = f"<w:tc><w:p>{said('five')}</w:p></w:tc>"
    for inner in (
        f"<w:p>{said('Before.')}<mc:AlternateContent><mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback></mc:AlternateContent></w:p>",
        f"<w:p><w:moveFrom>{said('Moved.')}</w:moveFrom><w:del><w:r><w:delText>Gone.</w:delText></w:r></w:del><w:ins>{said('New.')}</w:ins></w:p>",
        f"<w:p><w:moveTo>{said('Moved.')}</w:moveTo><w:r><w:rPr><w:vanish/></w:rPr><w:t>Hidden.</w:t></w:r></w:p>",
        f"<w:tbl><w:tr><w:tc><w:p>{said('Days')}</w:p></w:tc></w:tr><w:sdt><w:sdtContent><w:tr>{cell}</w:tr></w:sdtContent></w:sdt></w:tbl>",
        f"<w:customXml><w:p>{said('Wrapped.')}</w:p></w:customXml>",
    ):
        body = parse_xml(f"<w:body {spaces}>{inner}</w:body>")
        document.element.body.insert(len(document.element.body) - 1, body[0])
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()
