"""Folders of documents of every format, of dated versions, and the history of a repository."""

import datetime as dt
import gzip
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from files import PAGE, bomb, pdf, word

from chassis.errors import ServiceError
from ingestor.catalogue import CatalogueError, Collection, GitSource, load
from ingestor.ledger import Ledger
from ingestor.library import Library
from ingestor.loading import Loader
from ingestor.parsing.isolated import DocumentParser
from ingestor.parsing.parsed import Limits
from ingestor.sources import read
from knowledge.lance import LanceIndex
from knowledge.schema import Chunk, Document, Kind
from knowledge.visibility import Visibility

LINES = [(24.0, "Refund rules"), (11.0, "Refunds take five days.")]


@pytest.fixture(scope="module")
def parser() -> Iterator[DocumentParser]:
    """Return a parser with a small limit of bytes."""
    parser = DocumentParser(Limits(file_bytes=4 << 20, unpacked_bytes=8 << 20))
    yield parser
    parser.close()


def _collection(path: Path, kind: Kind = Kind.ANCHORED, git: GitSource | None = None) -> Collection:
    return Collection("rules", kind, path, "desk", "2030-01-01", "CC0-1.0", ("public",), git=git)


def _read(collection: Collection, parser: DocumentParser) -> tuple[list[Document], list[ServiceError]]:
    entries = list(read(collection, parser))
    errors = [entry for entry in entries if isinstance(entry, ServiceError)]
    return [entry for entry in entries if isinstance(entry, Document)], errors


def test_a_folder_of_every_format(tmp_path: Path, parser: DocumentParser) -> None:
    """Each file is a document named by its path; fields come from its front matter or from a file beside it."""
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "refunds.pdf").write_bytes(pdf(LINES))
    (tmp_path / "cards" / "refunds.pdf.meta.yaml").write_text(
        "effective_from: 2025-03-01\nversion: '2'\ntitle: Refunds\nlabels: [staff]\nexpires_at: 2027-01-01\nreview_date: 2026-06-01\n"
    )
    (tmp_path / "page.html").write_bytes(PAGE)
    (tmp_path / "rules.docx").write_bytes(word())
    (tmp_path / "rule.md").write_text("---\neffective_from: 2025-03-01\nlayout: wide\n---\n# The rule\n\nText.\n")
    (tmp_path / ".hidden").write_bytes(b"\x00")
    documents, errors = _read(_collection(tmp_path), parser)
    assert errors == []
    assert [document.document_id for document in documents] == ["cards/refunds", "page", "rule", "rules"]
    refunds, page, rule, rules = documents
    assert (refunds.title, refunds.version, refunds.labels, refunds.source) == ("Refunds", "2", ("staff",), "cards/refunds.pdf")
    assert (refunds.effective_from, refunds.expires_at) == (dt.datetime(2025, 3, 1, tzinfo=dt.UTC), dt.datetime(2027, 1, 1, tzinfo=dt.UTC))
    assert refunds.metadata == {"author": "A. Writer", "date": "2024-03-01", "review_date": "2026-06-01"}
    assert (page.title, page.labels, page.metadata["language"]) == ("Refund rules", ("public",), "en")
    assert (rule.title, rules.title) == ("The rule", "Refund rules")


def test_dated_files_are_versions(tmp_path: Path, parser: DocumentParser, library: Library, ledger: Ledger, index: LanceIndex) -> None:
    """A folder of dates and names with dates load as versions, each in force until the next; a page without a date is refused."""
    folder = tmp_path / "documents"
    (folder / "refunds").mkdir(parents=True)
    (folder / "refunds" / "2024-01-01.md").write_text("Refunds take ten days.")
    (folder / "refunds" / "2025-01-01.html").write_text("<html><p>Refunds take five days.</p></html>")
    (folder / "gifts@2024-06-01.txt").write_text("Gifts are not exchanged.")
    (folder / "undated.md").write_text("No date.")
    loaded = Loader(library, ledger, batch_documents=10, parser=parser).load(_collection(folder), indexed=False)
    assert [(refusal.document_id, refusal.error.code) for refusal in loaded.refusals] == [("undated", "missing_effective_date")]
    (chunks,) = index.documents(Kind.ANCHORED, ["rules/refunds"]).values()
    assert _validity(chunks) == {"2024-01-01": ("2024-01-01", "2025-01-01"), "2025-01-01": ("2025-01-01", "")}
    assert "rules/gifts" in index.documents(Kind.ANCHORED, ["rules/gifts"])


def _validity(chunks: list[Chunk]) -> dict[str, tuple[str, str]]:
    return {c.version: (f"{c.effective_from:%Y-%m-%d}", f"{c.superseded_at:%Y-%m-%d}" if c.superseded_at else "") for c in chunks}


def test_two_versions_with_one_date_are_refused(tmp_path: Path, parser: DocumentParser, library: Library, ledger: Ledger) -> None:
    """The same path twice is named at once; another version with a date that is taken is a conflict."""
    folder = tmp_path / "documents"
    (folder / "refunds").mkdir(parents=True)
    (folder / "refunds" / "2024-01-01.md").write_text("Refunds take ten days.")
    (folder / "refunds@2024-01-01.md").write_text("Refunds take five days.")
    (folder / "other.md").write_text("---\nid: refunds\nversion: b\neffective_from: 2024-01-01\n---\nRefunds take one day.")
    loaded = Loader(library, ledger, batch_documents=10, parser=parser).load(_collection(folder), indexed=False)
    assert loaded.changed == 1
    assert [refusal.error.code for refusal in loaded.refusals] == ["invalid_request", "version_conflict"]
    assert "the same document and version as" in str(loaded.refusals[0].error)


def test_bad_files_leave_nothing_and_the_others_are_loaded(
    tmp_path: Path, parser: DocumentParser, library: Library, ledger: Ledger, index: LanceIndex
) -> None:
    """An unreadable PDF, 200 MB, binary data as text, a bomb, and a way out of the folder are each refused with their code."""
    outside, folder = tmp_path / "secret.md", tmp_path / "documents"
    folder.mkdir()
    outside.write_text("---\neffective_from: 2024-01-01\n---\nA secret.")
    (folder / "link@2024-01-01.md").symlink_to(outside)
    (folder / "broken@2024-01-01.pdf").write_bytes(b"%PDF-1.7\n" + random.Random(7).randbytes(2000))
    with (folder / "huge@2024-01-01.txt").open("wb") as file:
        file.truncate(200 << 20)
    (folder / "binary@2024-01-01.md").write_bytes(random.Random(7).randbytes(2000))
    (folder / "bomb@2024-01-01.docx").write_bytes(bomb(9 << 20))
    (folder / "lost.pdf.meta.yaml").write_text("title: x")
    (folder / "slip@2024-01-01.md").write_text("---\nexpire_at: 2025-01-01\n---\nText.")
    (folder / "good@2024-01-01.md").write_text("Good.")
    (folder / "good@2024-01-01.md.meta.yaml").write_text("effective_form: 2025-01-01")
    (folder / "fine@2024-01-01.md").write_text("Fine.")
    loaded = Loader(library, ledger, batch_documents=10, parser=parser).load(_collection(folder), indexed=False)
    assert sorted(
        (str(refusal.error).strip("'").partition("@")[0].partition(".")[0], refusal.error.code) for refusal in loaded.refusals
    ) == [
        ("binary", "binary_as_text"),
        ("bomb", "document_too_large"),
        ("broken", "unreadable_document"),
        ("good", "invalid_request"),
        ("huge", "document_too_large"),
        ("link", "invalid_request"),
        ("lost", "invalid_request"),
        ("slip", "invalid_request"),
    ]
    assert index.holdings()["rules"].documents == 1


class Repository:
    """A real repository whose commits have the dates that are given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str, date: str = "2020-01-01T00:00:00Z") -> str:
        """Run git with fixed names and times."""
        who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@x", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@x"}
        environment = {**os.environ, **who, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date, "GIT_CONFIG_GLOBAL": os.devnull}
        return subprocess.run(["git", *arguments], cwd=self.path, env=environment, check=True, capture_output=True, text=True).stdout

    def commit(self, date: str, **files: str | None) -> str:
        """Write files, or remove those that are None, and commit; return the first twelve letters of the commit."""
        for name, text in files.items():
            file = self.path / "policies" / f"{name}.md"
            file.parent.mkdir(exist_ok=True)
            file.unlink() if text is None else file.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "change", date=date)
        return self.git("rev-parse", "HEAD")[:12]


def _page(days: str) -> str:
    rest = "\n".join(f"Paragraph {number} stays as it is." for number in range(12))
    return f"---\nlayout: policy\n---\n# Refunds\n\nRefunds take {days} days.\n\n{rest}\n"


def test_the_history_of_a_repository_is_its_versions(
    tmp_path: Path, parser: DocumentParser, library: Library, ledger: Ledger, index: LanceIndex
) -> None:
    """Each commit that changed a file is a version from its date on, over renames; a removal ends it, a new file begins another."""
    repository = Repository(tmp_path / "repository")
    first = repository.commit("2020-01-01T10:00:00Z", refunds=_page("ten"), other="# Other\n\nSomething else.")
    second = repository.commit("2021-01-01T10:00:00Z", refunds=_page("five"))
    repository.commit("2021-06-01T10:00:00Z", other=None)
    renamed = repository.commit("2022-01-01T10:00:00Z", refunds=None, returns=_page("four"))
    wrong_clock = repository.commit("2019-01-01T10:00:00Z", returns=_page("three"))
    repository.commit("2023-01-01T10:00:00Z", refunds="# Refunds\n\nA new page under an old name.")
    repository.git("checkout", "-q", "-b", "draft")
    repository.commit("2023-02-01T10:00:00Z", returns=_page("two"))
    repository.git("checkout", "-q", "main")
    repository.git("merge", "-q", "--no-ff", "-m", "merge", "draft", date="2023-03-01T10:00:00Z")
    merged = repository.git("rev-parse", "HEAD")[:12]
    collection = _collection(repository.path, git=GitSource(inside="policies", ref="main"))
    loader = Loader(library, ledger, batch_documents=10, parser=parser)
    loaded = loader.load(collection, indexed=False)
    assert (loaded.refusals, loaded.changed) == ([], 7)

    found = index.documents(Kind.ANCHORED, ["rules/policies/refunds", "rules/policies/refunds~2", "rules/policies/other"])
    assert _validity(found["rules/policies/refunds"]) == {
        first: ("2020-01-01", "2021-01-01"),
        second: ("2021-01-01", "2022-01-01"),
        renamed: ("2022-01-01", "2022-01-01"),
        wrong_clock: ("2022-01-01", "2023-03-01"),
        merged: ("2023-03-01", ""),
    }
    assert [f"{chunk.expires_at:%Y-%m-%d}" for chunk in found["rules/policies/other"] if chunk.expires_at] == ["2021-06-01"]
    assert len(found["rules/policies/refunds~2"]) == 1
    as_of = Visibility("acme", frozenset({"public"}), ("rules",), dt.datetime(2021, 3, 1, tzinfo=dt.UTC))
    assert {hit.chunk.version for hit in index.lexical("refunds take days something else", as_of, 10)} == {second, first}

    assert loader.load(collection, indexed=True).changed == 0
    repository.commit("2024-01-01T10:00:00Z", returns=_page("one"))
    assert loader.load(collection, indexed=True).changed == 1


def test_a_day_has_one_version_where_that_is_declared(tmp_path: Path, parser: DocumentParser) -> None:
    """The last commit of each day counts, and what one day begins and ends never held."""
    repository = Repository(tmp_path / "repository")
    repository.commit("2020-01-01T08:00:00Z", refunds=_page("ten"), brief="# Brief\n\nHere.")
    last = repository.commit("2020-01-01T20:00:00Z", refunds=_page("nine"), brief=None)
    next_day = repository.commit("2020-01-02T20:00:00Z", refunds=_page("eight"))
    collection = _collection(repository.path, git=GitSource(per_day=True))
    documents, errors = _read(collection, parser)
    assert errors == []
    assert [(document.document_id, document.version) for document in documents] == [
        ("policies/refunds", last),
        ("policies/refunds", next_day),
    ]


def test_a_file_comes_back_and_links_are_no_documents(tmp_path: Path, parser: DocumentParser) -> None:
    """A page that is removed and written again is one document with a gap; a link, a picture and what replaces a page add nothing."""
    repository = Repository(tmp_path / "repository")
    repository.commit("2020-01-01T08:00:00Z", refunds=_page("ten"), gifts="# Gifts\n\nNo exchange.")
    repository.commit("2020-02-01T08:00:00Z", refunds=None)
    (repository.path / "policies" / "link.md").symlink_to("gifts.md")
    (repository.path / "policies" / "logo.png").write_bytes(b"\x89PNG")
    repository.commit("2020-03-01T08:00:00Z", refunds=_page("nine"))
    (repository.path / "policies" / "gifts.md").unlink()
    (repository.path / "policies" / "gifts.md").symlink_to("refunds.md")
    (repository.path / "policies" / "link.md").unlink()
    repository.commit("2020-04-01T08:00:00Z")
    documents, errors = _read(_collection(repository.path, git=GitSource(inside="policies")), parser)
    assert errors == []
    assert [
        (document.document_id, f"{document.effective_from:%m-%d}", f"{document.expires_at:%m-%d}" if document.expires_at else "")
        for document in documents
    ] == [
        ("policies/gifts", "01-01", "04-01"),
        ("policies/refunds", "01-01", "02-01"),
        ("policies/refunds", "03-01", ""),
    ]


def test_history_that_cannot_be_read_is_one_error(tmp_path: Path, parser: DocumentParser) -> None:
    """A folder without a repository and a branch that is not there are named; a document that is too large is left out alone."""
    (tmp_path / "empty").mkdir()
    _, (no_repository,) = _read(_collection(tmp_path / "empty", git=GitSource()), parser)
    repository = Repository(tmp_path / "repository")
    repository.commit("2020-01-01T08:00:00Z", refunds=_page("ten"), large="x" * (5 << 20))
    _, (no_branch,) = _read(_collection(repository.path, git=GitSource(ref="nowhere")), parser)
    assert "not a git repository" in str(no_repository)
    assert "nowhere" in str(no_branch)
    documents, (large,) = _read(_collection(repository.path, git=GitSource()), parser)
    assert ([document.document_id for document in documents], large.code) == (["policies/refunds"], "document_too_large")


def test_a_repository_runs_nothing(tmp_path: Path, parser: DocumentParser) -> None:
    """Programs that a repository's configuration names for reading it are not started."""
    repository = Repository(tmp_path / "repository")
    repository.commit("2020-01-01T08:00:00Z", refunds=_page("ten"))
    repository.commit("2020-01-02T08:00:00Z", refunds=_page("nine"))
    trap, mark = tmp_path / "trap.sh", tmp_path / "ran"
    trap.write_text(f"#!/bin/sh\ntouch {mark}\n")
    trap.chmod(0o755)
    for name in ("diff.external", "core.fsmonitor", "diff.x.textconv", "core.pager"):
        repository.git("config", name, str(trap))
    (repository.path / ".gitattributes").write_text("*.md diff=x\n")
    documents, _ = _read(_collection(repository.path, git=GitSource()), parser)
    assert len(documents) == 2
    assert not mark.exists()


_ENTRY = "name: rules\n  kind: anchored\n  path: documents\n  owner: desk\n  review_date: 2030-01-01\n  licence: MIT\n"


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ("chunker: structural", r"collections\[0\].chunker: unknown chunker 'structural'; known"),
        ("chunkers: x", r"collections\[0\] has unknown settings \['chunkers'\]; known"),
        ("history_days: 0", r"history_days: must be a number of days"),
        ("freshness_sla_seconds: soon", r"freshness_sla_seconds: must be a number above 0"),
        ("labels: public", r"labels: must be a list"),
        ("git: {refs: main}", r"git: unknown settings \['refs'\]"),
        ("git: {ref: --exec=x}", r"git: '--exec=x' does not match"),
        ("git: {inside: ../..}", r"git: inside '../..' must be"),
        ("review_date: soon", r"review_date: Invalid isoformat"),
    ],
)
def test_settings_of_a_collection_are_checked(tmp_path: Path, more: str, error: str) -> None:
    """A wrong or unknown setting ends the start with one line that names it."""
    folder = tmp_path / "desk"
    (folder / "documents").mkdir(parents=True)
    entry = _ENTRY.replace("  review_date: 2030-01-01\n", "") if more.startswith("review_date") else _ENTRY
    (folder / "domain.yaml").write_text(f"collections:\n- {entry}  {more}\n")
    with pytest.raises(CatalogueError, match=error):
        load(tmp_path)


def test_settings_of_a_collection_are_read(tmp_path: Path) -> None:
    """What is declared is there, and the rest has its default."""
    folder = tmp_path / "desk"
    (folder / "documents").mkdir(parents=True)
    settings = "chunker: sentence-window-5-1-v1\n  history_days: 30\n  freshness_sla_seconds: 5\n  git: {inside: p, versions: day}"
    (folder / "domain.yaml").write_text(f"collections:\n- {_ENTRY}  {settings}\n")
    (rules,) = load(tmp_path).values()
    assert (rules.chunker, rules.history_days, rules.freshness_sla_seconds) == ("sentence-window-5-1-v1", 30, 5.0)
    assert rules.git == GitSource("p", "HEAD", per_day=True)


def test_compressed_lines_take_the_chunker_of_their_collection(tmp_path: Path, parser: DocumentParser) -> None:
    """What a collection declares holds for every document of it."""
    row = {"id": "a", "title": "A", "text": "Text.", "effective_from": "2024-01-01"}
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write(json.dumps(row))
    collection = Collection("rules", Kind.ANCHORED, tmp_path, "desk", "2030-01-01", "MIT", (), chunker="structural-180-v2")
    ((document,), _) = _read(collection, parser)
    assert document.chunker == "structural-180-v2"
