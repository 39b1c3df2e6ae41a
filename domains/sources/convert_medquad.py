"""Writes the anchored documents of the healthcare domain from the MedQuAD corpus."""
# ruff: noqa: INP001 - a script in a folder of data

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MAX_CHARACTERS = 6000
# The source pages carry no date: the day on which the corpus was published stands for the version.
PUBLISHED = "2019-10-22"
LABELS = {
    "information": "what it is",
    "symptoms": "symptoms",
    "treatment": "treatment",
    "causes": "causes",
    "prevention": "prevention",
    "exams and tests": "how it is diagnosed",
    "susceptibility": "who is at risk",
    "considerations": "what to do",
    "outlook": "outlook",
    "complications": "complications",
}


def wanted(topics: dict[str, dict[str, str]]) -> set[tuple[str, str, str]]:
    """Return (source, question type, topic) of every answer to keep."""
    return {
        (source, kind, topic.strip()) for source, kinds in topics.items() for kind, names in kinds.items() for topic in names.split(";")
    }


def to_document(row: dict[str, Any]) -> dict[str, Any]:
    """Convert one MedQuAD answer to the document format of a domain."""
    about = row["metadata"]
    label = LABELS.get(about["qtype"], about["qtype"])
    return {
        "id": "medquad/" + row["_id"],
        "title": f"{about['focus']}: {label}",
        "text": row["text"],
        "version": "1",
        "effective_from": PUBLISHED,
        "source": "MedQuAD, " + about["source"],
        "licence": "CC-BY-4.0",
        "url": about["url"],
        "metadata": {"topic": about["focus"], "question": row["title"].replace(" ?", "?"), "kind": about["qtype"]},
    }


def select(corpus: Path, topics: dict[str, dict[str, str]]) -> Iterator[dict[str, Any]]:
    """Yield the documents of the wanted topics, each text once."""
    keep, seen = wanted(topics), set[str]()
    with gzip.open(corpus, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            about = row["metadata"]
            keys = {(about["source"], kind, about["focus"]) for kind in (about["qtype"], "any")}
            too_long = len(row["text"]) > MAX_CHARACTERS
            if not keys & keep or too_long or row["text"] in seen or about["qtype"] == "research":
                continue
            seen.add(row["text"])
            yield to_document(row)


def main() -> None:
    """Write `documents/nih-answers.jsonl.gz` from the folder given with --data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds retrieval/medquad")
    here = Path(__file__).parent
    topics = yaml.safe_load((here / "medquad_topics.yaml").read_text())
    corpus = parser.parse_args().data / "retrieval" / "medquad" / "corpus.jsonl.gz"
    lines = [json.dumps(row, ensure_ascii=False) for row in select(corpus, topics)]
    target = here.parent / "healthcare" / "documents" / "nih-answers.jsonl.gz"
    target.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))
    sys.stdout.write(f"{len(lines)} documents, {target.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
