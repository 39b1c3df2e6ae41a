"""Folders: what is loaded, what is left alone, what is refused."""

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chassis.errors import ServiceError
from ingestor import catalogue
from ingestor.ledger import Ledger
from ingestor.library import Library
from ingestor.loading import Loaded, Loader
from ingestor.parsing.isolated import DocumentParser
from ingestor.parsing.parsed import Limits
from ingestor.sources import read
from knowledge.lance import LanceIndex
from knowledge.schema import Document, Kind

NOTICES: list[dict[str, object]] = [{"id": "lift", "text": "The lift is broken."}, {"id": "door", "text": "The door is open."}]


def _load(home: Path, library: Library, ledger: Ledger, index: LanceIndex) -> Loaded:
    loader, holdings = Loader(library, ledger, batch_documents=1), index.holdings()
    (result,) = [loader.load(c, indexed=c.name in holdings) for c in catalogue.load(home / "domains").values()]
    return result


def _texts(index: LanceIndex, *ids: str) -> list[str]:
    found = index.documents(Kind.FLUID, [f"notices/{name}" for name in ids])
    return [chunk.text for chunks in found.values() for chunk in chunks]


def test_a_folder_is_loaded_once(tmp_path: Path, declare: Any, library: Library, ledger: Ledger, index: LanceIndex) -> None:
    """The second start finds everything there, and a line that changed is the only one loaded again."""
    declare({"notices": ("fluid", NOTICES)})
    assert _load(tmp_path, library, ledger, index).changed == 2
    assert _load(tmp_path, library, ledger, index).changed == 0
    declare({"notices": ("fluid", [NOTICES[0], {"id": "door", "text": "The door is shut."}])})
    assert _load(tmp_path, library, ledger, index).changed == 1
    assert _texts(index, "lift", "door") == ["The lift is broken.", "The door is shut."]


def test_fluid_documents_leave_with_their_line(tmp_path: Path, declare: Any, library: Library, ledger: Ledger, index: LanceIndex) -> None:
    """A document that is gone from the folder is gone from the index."""
    declare({"notices": ("fluid", NOTICES)})
    _load(tmp_path, library, ledger, index)
    declare({"notices": ("fluid", NOTICES[:1])})
    assert _load(tmp_path, library, ledger, index).removed == 1
    assert _texts(index, "lift", "door") == ["The lift is broken."]


def test_a_restart_does_not_undo_later_changes(tmp_path: Path, declare: Any, library: Library, ledger: Ledger, index: LanceIndex) -> None:
    """What was changed or deleted over gRPC stays so, as long as the folder says nothing new."""
    declare({"notices": ("fluid", NOTICES)})
    _load(tmp_path, library, ledger, index)
    library.put([Document("notices", Kind.FLUID, "lift", "lift", "The lift works again.", labels=("public",))])
    library.remove(Kind.FLUID, "notices", "door")
    assert _load(tmp_path, library, ledger, index).changed == 0
    assert _texts(index, "lift", "door") == ["The lift works again."]


def test_a_lost_index_is_filled_again(tmp_path: Path, declare: Any, library: Library, ledger: Ledger, index: LanceIndex) -> None:
    """A ledger that says loaded does not keep an empty index empty."""
    declare({"notices": ("fluid", NOTICES)})
    _load(tmp_path, library, ledger, index)
    index.replace(Kind.FLUID, {"notices/lift": [], "notices/door": []})
    assert _load(tmp_path, library, ledger, index).changed == 2


def test_a_bad_line_is_named_and_the_others_are_loaded(
    tmp_path: Path, declare: Any, library: Library, ledger: Ledger, index: LanceIndex
) -> None:
    """The refusal names file, row and field."""
    declare({"notices": ("fluid", [{"id": "bad", "text": ""}, *NOTICES, {"id": "when", "text": "x", "expires_at": "soon"}])})
    result = _load(tmp_path, library, ledger, index)
    assert [str(refusal.error) for refusal in result.refusals] == [
        "notices.jsonl:1: field 'text' must be a text that is not empty",
        "notices.jsonl:4: field 'expires_at' must be a date, got 'soon'",
    ]
    assert result.changed == 2


def test_a_row_that_no_program_can_keep_is_one_refusal(
    tmp_path: Path, declare: Any, library: Library, ledger: Ledger, index: LanceIndex
) -> None:
    """A date outside the calendar, half a character, endless nesting, a date that is none: each is refused, the rest is loaded."""
    far = {"id": "far", "text": "Far.", "expires_at": "9999-12-31T23:59:59Z", "effective_from": "0001-01-01"}
    declare({"notices": ("fluid", [far])})
    documents = tmp_path / "domains" / "desk" / "documents"
    lines = [
        '{"id": "late", "title": "a", "text": "x", "expires_at": "9999-12-31T23:59:59-05:00"}',
        '{"id": "half", "title": "a", "text": "bad \\ud800"}',
        '{"id": "deep", "title": "a", "text": "x", "metadata": ' + '{"a":' * 1200 + "1" + "}" * 1200 + "}",
        '{"id": "list", "title": "a", "text": "x", "expires_at": []}',
        '{"id": "digits", "title": "a", "text": "x", "version": ' + "9" * 5000 + "}",
    ]
    with (documents / "notices.jsonl").open("a") as file:
        file.write("\n".join(lines))
    result = _load(tmp_path, library, ledger, index)
    assert [(refusal.error.code, str(refusal.error).partition(" ")[0]) for refusal in result.refusals] == [
        ("unreadable_document" if number == 3 else "invalid_request", f"notices.jsonl:{number}:") for number in range(2, 7)
    ]
    assert _texts(index, "far") == ["Far."]

    (documents / "late.md").write_text("---\neffective_from: 9999-12-31T23:59:59-05:00\n---\n# Rule\n\nText.\n")
    (documents / "half.md").write_text('---\ntitle: "\\uD800"\n---\nText.\n')
    (documents / "strange\udcff.md").write_text("# Rule\n\nText.\n")
    collection = catalogue.load(tmp_path / "domains")["notices"]
    entries = [entry for entry in read(catalogue.Collection(**{**vars(collection), "path": documents})) if isinstance(entry, ServiceError)]
    codes = {str(entry).partition(":")[0]: entry.code for entry in entries if ".md" in str(entry)}
    assert codes == {"half.md": "unreadable_document", "late.md": "invalid_request", "strange\\udcff.md": "unreadable_document"}


def test_a_picture_does_not_keep_what_has_left_a_folder(
    tmp_path: Path, declare: Any, library: Library, ledger: Ledger, index: LanceIndex
) -> None:
    """A file of a kind that is not read is no form of a document that is gone; a page that cannot be read may be."""
    declare({"notices": ("fluid", [])})
    folder = tmp_path / "domains" / "desk" / "documents" / "pages"
    folder.mkdir()
    collection = replace(catalogue.load(tmp_path / "domains")["notices"], path=folder)
    loader = Loader(library, ledger, batch_documents=2)
    for name in ("lift", "door"):
        (folder / f"{name}.md").write_text(f"The {name} is broken.")
    (folder / "map.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert loader.load(collection, indexed=True).changed == 2
    (folder / "lift.md").unlink()
    (folder / "door.md").write_bytes(b"\xff\xfe\x00")
    assert loader.load(collection, indexed=True).removed == 0
    (folder / "door.md").write_text("The door is broken.")
    result = loader.load(collection, indexed=True)
    assert (result.removed, [refusal.error.code for refusal in result.refusals]) == (1, ["unsupported_document"])
    assert (_texts(index, "lift"), _texts(index, "door")) == ([], ["The door is broken."])


def test_an_endless_line_is_not_read_whole(tmp_path: Path, declare: Any) -> None:
    """What a few bytes unpack to may be larger than the memory."""
    declare({"notices": ("fluid", [])})
    collection = catalogue.load(tmp_path / "domains")["notices"]
    file = collection.path.with_name("bomb.jsonl.gz")
    file.write_bytes(gzip.compress(b"a" * 20_000))
    parser = DocumentParser(Limits(text_characters=1000))
    (error,) = read(replace(collection, path=file), parser)
    assert isinstance(error, ServiceError)
    assert (error.code, str(error)) == ("document_too_large", "bomb.jsonl.gz:1: has more than 8000 characters")


def test_pages_with_front_matter(tmp_path: Path, declare: Any) -> None:
    """A folder of Markdown and text files is a collection too; a binary file is refused."""
    declare({"notices": ("anchored", [])})
    documents = tmp_path / "domains" / "desk" / "documents"
    (documents / "rule.md").write_text("---\nversion: 2\neffective_from: 2025-03-01\n---\n# The rule\n\nText.\n")
    (documents / "plain.txt").write_text("Just text.")
    (documents / "broken.txt").write_bytes(b"\xff\xfe\x00")
    collection = catalogue.load(tmp_path / "domains")["notices"]
    entries = list(read(catalogue.Collection(**{**vars(collection), "path": documents})))
    broken, plain, rule = entries
    assert isinstance(broken, ServiceError)
    assert broken.code == "unreadable_document"
    assert isinstance(plain, Document)
    assert (plain.document_id, plain.title, plain.text) == ("plain", "plain", "Just text.")
    assert isinstance(rule, Document)
    assert (rule.title, rule.version, rule.effective_from.date().isoformat()) == ("The rule", "2", "2025-03-01")


def test_a_wrong_declaration_is_refused(tmp_path: Path, declare: Any) -> None:
    """A collection whose path is missing names the file and the field."""
    declare({"notices": ("fluid", NOTICES)})
    (tmp_path / "domains" / "desk" / "documents" / "notices.jsonl").unlink()
    with pytest.raises(catalogue.CatalogueError, match=r"domain.yaml: collections\[0\].path"):
        catalogue.load(tmp_path / "domains")
