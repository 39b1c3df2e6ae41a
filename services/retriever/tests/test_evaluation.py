"""The evaluation suites: what they score, and how they name malformed input."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from retriever import metrics
from retriever.evaluation import asof, retrieval
from retriever.support import compression

CORPUS = [
    {"_id": "pool", "title": "Pool", "text": "The swimming pool opens at seven."},
    {"_id": "bees", "title": "Bees", "text": "Honey bees dance to show where flowers are."},
    {"_id": "iron", "title": "", "text": "Iron melts at 1538 degrees Celsius."},
]
QUERIES = [{"_id": "q1", "text": "When can I go swimming?"}, {"_id": "q2", "text": "At what temperature does iron melt?"}]
RULES = [
    {"doc_id": "refund", "version": "1", "effective_from": "2020-01-01", "title": "Refunds", "text": "Refunds take ten days."},
    {"doc_id": "refund", "version": "2", "effective_from": "2024-01-01", "title": "Refunds", "text": "Refunds take five days."},
]
ASKED = [
    {"query": "How long do refunds take?", "as_of": "2021-05-05", "doc_id": "refund", "version": "1"},
    {"query": "How long do refunds take?", "as_of": "2025-05-05", "doc_id": "refund", "version": "2"},
    {"query": "How long do refunds take?", "as_of": "2025-05-05", "doc_id": "refund", "version": "9"},
]


def _lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("\n".join(json.dumps(row) for row in rows))


def _beir(folder: Path, qrels: str = "query-id\tcorpus-id\tscore\nq1\tpool\t1\nq2\tiron\t2\n") -> Path:
    _lines(folder / "corpus.jsonl", CORPUS)
    _lines(folder / "queries.jsonl", QUERIES)
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def test_retrieval_scores_documents(tmp_path: Path) -> None:
    """Every headline metric is there with an interval; each leg is scored alone on request."""
    result = retrieval(_beir(tmp_path), options={"ablate": "true"})
    assert (result["n"], result["invalid"], result["split"]) == (2, 0, "test")
    assert result["ndcg@10"] == result["mrr@10"] == result["recall@100"] == result["hit@5"] == result["context_recall@5"] == 1.0
    assert set(result["intervals"]) == {"ndcg@10", "mrr@10", "recall@100", "hit@5", "context_precision@5", "context_recall@5"}
    assert set(result["latency_ms"]) == {"p50", "p95", "p99"}
    assert set(result["ablation"]) == {"bm25", "dense", "fusion", "rrf"}
    assert set(result["chunkers"]) == {"skipped"}


def test_searches_and_chunkers_are_rows_of_the_ablation(tmp_path: Path) -> None:
    """Each option of a search and each named chunker is scored and held against what is served, query by query."""
    folder = _beir(tmp_path)
    _lines(folder / "guesses.jsonl", [{"_id": "q1", "text": "The swimming pool opens early."}])
    options = {"ablate": "true", "chunkers": "structural-180-v2,semantic-180-v1", "hypotheses": str(folder / "guesses.jsonl")}
    result = retrieval(folder, options=options)
    assert set(result["searches"]) == {"rewritten_question", "rewritten_terms", "multi_query", "hyde"}
    assert result["searches"]["hyde"]["n"] == 1
    # A short question is searched as it is.
    assert result["searches"]["multi_query"]["minus_plain"]["mean"] == 0.0
    assert [name for name in result["chunkers"] if name != "default"] == ["structural-180-v2", "semantic-180-v1"]
    assert result["chunkers"]["semantic-180-v1"]["ndcg@10"] == 1.0


def test_an_unknown_chunker_is_named(tmp_path: Path) -> None:
    """The error says which ones there are."""
    with pytest.raises(ValueError, match="unknown chunker 'by-eye'; known"):
        retrieval(_beir(tmp_path), options={"ablate": "true", "chunkers": "by-eye"})


def test_a_judgement_of_a_missing_document_is_not_scored(tmp_path: Path) -> None:
    """A query whose relevant documents are not in the corpus is invalid, never zero."""
    result = retrieval(_beir(tmp_path, "query-id\tcorpus-id\tscore\nq1\tpool\t1\nq2\tgone\t1\n"), options={})
    assert (result["n"], result["invalid"], result["ndcg@10"]) == (1, 1, 1.0)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", '{"_id": "a", "title": "t"}', "corpus.jsonl:1: field 'text'"),
        ("queries.jsonl", '{"_id": "q1", "text": "x"}\n{"text": "y"}', "queries.jsonl:2: field '_id'"),
        ("queries.jsonl", "{", "queries.jsonl:1: not JSON"),
        ("qrels/test.tsv", "q1\tpool\tmany", "test.tsv:1: field 'score'"),
        ("qrels/test.tsv", "q7\tpool\t1", "test.tsv:1: field 'query-id'"),
        ("qrels/test.tsv", f"q1\t{'p' * 200_000}\t1\nq7\tpool\t1", "test.tsv:2: field 'query-id'"),
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}', "corpus.jsonl:2: field '_id': 'a' is there already"),
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\n{"_id": "b", "text": "y \\ud800"}', "corpus.jsonl:2: field 'text' holds half"),
        ("corpus.jsonl", "[" * 100_000, "corpus.jsonl:1: not JSON"),
        ("corpus.jsonl", b'{"_id": "a", "text": "x"}\n{"_id": "b", "text": "r\xfcck"}', "corpus.jsonl:2: not UTF-8"),
        ("corpus.jsonl.gz", b"plain", "corpus.jsonl.gz:1: cannot be unpacked"),
        ("corpus.jsonl.gz", gzip.compress(b'{"_id": "a", "text": "x"}\n' * 9)[:-9], "corpus.jsonl.gz:.*: cannot be unpacked"),
    ],
)
def test_malformed_input_is_named(tmp_path: Path, file: str, content: str | bytes, message: str) -> None:
    """The error names file, row and field."""
    folder = _beir(tmp_path)
    (folder / file.removesuffix(".gz")).unlink()
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        retrieval(folder, options={})


def test_files_of_other_systems_are_read_as_they_are(tmp_path: Path) -> None:
    """Marks of the encoding, ends of lines, blank and repeated rows and compression change nothing; a title alone is found."""
    rows = [{"_id": "pool", "title": "The swimming pool opens at seven", "text": ""}, {**CORPUS[1], "title": None}, CORPUS[2], CORPUS[2]]
    folder = _beir(tmp_path)
    for file, content in (
        ("corpus.jsonl", "\n\n".join(map(json.dumps, rows))),
        ("queries.jsonl", "\n".join(map(json.dumps, QUERIES))),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n\nq1\tpool\t1\nq2\tiron\t2\n"),
    ):
        (folder / file).unlink()
        (folder / f"{file}.gz").write_bytes(gzip.compress(f"\ufeff{content}".replace("\n", "\r\n").encode()))
    result = retrieval(folder, options={})
    assert (result["n"], result["documents"], result["ndcg@10"]) == (2, 3, 1.0)


def test_asof_scores_the_version_in_force(tmp_path: Path) -> None:
    """The version of the time comes first, no other version of it is near, and an unknown one is invalid."""
    _lines(tmp_path / "documents.jsonl", RULES)
    _lines(tmp_path / "questions.jsonl", ASKED)
    result = asof(tmp_path / "questions.jsonl", options={})
    assert (result["n"], result["invalid"], result["version_accuracy"], result["superseded_leak_rate"]) == (2, 1, 1.0, 0.0)


def test_an_engine_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """An unknown backend is malformed, and a cluster without credentials says what is missing."""
    _lines(tmp_path / "documents.jsonl", RULES)
    _lines(tmp_path / "questions.jsonl", ASKED)
    with pytest.raises(ValueError, match="'solr' is none of"):
        asof(tmp_path / "questions.jsonl", options={"backend": "solr"})
    with pytest.raises(OSError, match="password"):
        asof(tmp_path / "questions.jsonl", options={"backend": "opensearch", "state": str(tmp_path)})


def test_two_versions_of_one_date_are_malformed(tmp_path: Path) -> None:
    """Which of them is in force cannot be told."""
    _lines(tmp_path / "documents.jsonl", [RULES[0], {**RULES[1], "effective_from": "2020-01-01"}])
    _lines(tmp_path / "questions.jsonl", ASKED)
    with pytest.raises(ValueError, match=r"documents.jsonl:2: field 'effective_from'"):
        asof(tmp_path / "questions.jsonl", options={})


def test_metrics_of_a_known_ranking() -> None:
    """The numbers are those of the definitions."""
    judged = {"a": 1, "b": 1}
    assert metrics.ndcg(["a", "x", "b"], judged, 10) == pytest.approx(1.5 / (1 + 1 / 1.5849625), abs=1e-6)
    assert metrics.reciprocal_rank(["x", "b"], judged, 10) == 0.5
    assert metrics.recall(["x", "b"], judged, 100) == 0.5
    assert metrics.precision(["x", "b"], judged, 5) == 0.5


MARKED = [
    {
        "claim": "Iron melts above 1500 degrees.",
        "title": "Iron",
        "abstract": ["Iron is a metal.", "It rusts in water.", "Iron melts at 1538 degrees Celsius.", "Bridges are made of it."],
        "rationale_sentences": [[2], [1, 3]],
    },
    {
        "query": "When does the pool open?",
        "text": "The pool is old. It opens at seven. Dogs stay outside.",
        "evidence": ["It opens at seven."],
    },
    {"query": "When does it close?", "text": "The pool is old.", "evidence": ["At nine."]},
]


def test_compression_tells_what_support_is_left(tmp_path: Path) -> None:
    """One set of evidence sentences is enough to support; evidence that the text does not have makes a row invalid."""
    _lines(tmp_path / "marked.jsonl", MARKED)
    result = compression(tmp_path / "marked.jsonl", options={"ratios": "0.4,1"})
    assert (result["n"], result["invalid"]) == (2, 1)
    assert result["by_keep_ratio"]["1.0"]["evidence_kept"] == 1.0
    assert result["by_keep_ratio"]["1.0"]["tokens_saved"] == 0.0
    some = result["by_keep_ratio"]["0.4"]
    assert some["support_kept"] > some["evidence_kept"]
    assert some["tokens_saved"] >= 0.5
    assert set(some["window"]) >= {"evidence_kept", "support_kept", "tokens_saved"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**MARKED[0], "rationale_sentences": [[7]]}, "marked.jsonl:1: field 'rationale_sentences' names"),
        ({**MARKED[0], "abstract": "text"}, "marked.jsonl:1: field 'abstract'"),
        ({**MARKED[1], "evidence": "It opens"}, "marked.jsonl:1: field 'evidence'"),
    ],
)
def test_malformed_evidence_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    """The error names file, row and field."""
    (tmp_path / "marked.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=message):
        compression(tmp_path / "marked.jsonl", options={})
