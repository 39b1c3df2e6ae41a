"""Writes the labelled training files of the three router heads from public sets and seeds.

Usage: python models/router/build_data.py --data FOLDER_OF_PUBLIC_SETS
"""

import argparse
import gzip
import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from seeding import Seeds
from sources import LICENCES, Corpus, Row

HERE = Path(__file__).parent
HEADS = ("request_class", "healthcare_intent", "retail_intent")
PER_SOURCE = {"request_class": 700, "healthcare_intent": 900, "retail_intent": 900}
_INTENT_SETS = ("clinc150", "hwu64", "banking77", "bitext")
_REASONING = {"math", "physics", "chemistry", "engineering", "computer science", "economics", "philosophy", "business"}
_EXTRACTION = (
    "Extract the symptoms as JSON: {note}",
    "Turn this conversation into structured fields.\n{note}",
    "{note}\n\nReturn name, age, symptoms and medications as a JSON object.",
    "{note}",
    "Summarize the visit note as a table: {note}",
    "List every drug and dose in the following note: {note}",
)


class Builder:
    """Collects the rows of each head."""

    def __init__(self, corpus: Corpus) -> None:
        """Read mapping and seeds beside this file."""
        self.corpus = corpus
        self.mapping: dict[str, Any] = yaml.safe_load((HERE / "mapping.yaml").read_text(encoding="utf-8"))
        self.seeds = Seeds(HERE / "seeds.yaml")

    def rows(self, head: str) -> Iterator[Row]:
        """Yield every candidate row of `head`, before caps and duplicates."""
        yield from self._mapped(head)
        yield from {
            "request_class": self._request_class,
            "healthcare_intent": self._healthcare,
            "retail_intent": self._retail,
        }[head]()

    def _mapped(self, head: str) -> Iterator[Row]:
        tables: dict[str, dict[str, Any]] = self.mapping[head]
        skipped = self.mapping["left_out"].get(head, {})
        for source in _INTENT_SETS:
            named = {i: label for label, sets in tables.items() for i in sets.get(source, []) if sets.get(source) != "rest"}
            rest = next((label for label, sets in tables.items() if sets.get(source) == "rest"), None)
            for text, intent in self.corpus.intents(source):
                label = named.get(intent, None if intent in skipped.get(source, []) else rest)
                if label is not None:
                    yield Row(text, label, source)

    def _request_class(self) -> Iterator[Row]:
        yield from self._documents("retrieval_heavy")
        for text, source in self.corpus.tool_requests():
            yield Row(text, "tool_workflow", source)
        for number, (text, source) in enumerate(self.corpus.narratives()):
            yield Row(_EXTRACTION[number % len(_EXTRACTION)].format(note=text), "structured_extraction", source)
        notes = [text[:240] for text, _ in self.corpus.narratives()]
        for number in range(0, len(notes), 4):
            for text in self.seeds.sentences("structured_extraction", 1, note=notes[number]):
                yield Row(text, "structured_extraction", "seeds")
        yield from self._reasoning()
        yield from self._safety()
        for label, names in {
            "simple_lookup": ("stock", "loyalty"),
            "tool_workflow": ("order",),
            "retrieval_heavy": ("policy", "medication"),
        }.items():
            for name in names:
                yield from self._seeded(label, 250, name)
        yield from self._administrative()

    def _administrative(self) -> Iterator[Row]:
        actions = (
            "book",
            "schedule",
            "make",
            "arrange",
            "cancel",
            "move",
            "reschedule",
            "need",
            "request",
            "send",
            "change",
            "refill",
            "fax",
            "forward",
            "transfer",
        )
        for text in self.seeds.sentences("administrative", 700):
            acts = any(re.search(rf"\b{word}\b", text.lower()) for word in actions)
            yield Row(text, "tool_workflow" if acts else "simple_lookup", "seeds")

    def _documents(self, label: str) -> Iterator[Row]:
        for text in self.corpus.medical_questions():
            yield Row(text, label, "medquad")
        for row in self.corpus.rows("retrieval/scifact/queries.jsonl"):
            yield Row(row["text"], label, "scifact")
        for row in self.corpus.rows("retrieval/pubmedqa_l/queries.jsonl.gz"):
            yield Row(row["text"], label, "pubmedqa")
        for row in self.corpus.rows("retrieval/github_site_policy_versions/queries.jsonl.gz"):
            yield Row(row["text"], label, "github_policy")

    def _reasoning(self) -> Iterator[Row]:
        label = "high_ambiguity_reasoning"
        for number, row in enumerate(self.corpus.rows("routing/mmlu_pro_pairs/dev.jsonl.gz")):
            if row["category"] in _REASONING and len(row["question"]) > 60:
                options = "\n".join(row["options"]) if number % 3 == 0 else ""
                yield Row(f"{row['question']}\n{options}".strip()[:900], label, "mmlu_pro")
        for row in self.corpus.rows("routing/routellm_eval/mtbench_question.jsonl"):
            if row["category"] in {"math", "reasoning", "coding", "stem"}:
                yield Row(row["turns"][0], label, "mt_bench")
        for row in self.corpus.rows("triage_retail/avey_vignettes/dev.jsonl.gz"):
            if row["correct_diagnosis"] not in self.mapping["avey_urgent"]:
                yield Row(f"{row['presentation']} What could this be and what should be done first?"[:800], label, "avey")
        for source in ("nursesim", "clinicaflow"):
            for texts, acuity in self.corpus.complaints(source):
                if acuity != "urgent":
                    yield from (Row(text, label, source) for text in texts)
        for text in self.seeds.sentences("symptom_triage", 300):
            # A question about an illness needs a document; a complaint needs weighing.
            asks = re.match(r"(what (is|are)|how (long|is|to|do you)|is) ", text.lower())
            yield Row(text, "retrieval_heavy" if asks else label, "seeds")

    def _safety(self) -> Iterator[Row]:
        label = "safety_sensitive"
        for source in ("nursesim", "clinicaflow"):
            for texts, acuity in self.corpus.complaints(source):
                if acuity == "urgent":
                    yield from (Row(text, label, source) for text in texts)
        for row in self.corpus.rows("injection/advbench/dev_clean.jsonl"):
            yield Row(row["goal"], label, "advbench")
        for row in self.corpus.rows("safety/openai_moderation/dev_clean.jsonl.gz"):
            if any(row.get(key) == 1 for key in ("SH", "V", "HR", "H2", "V2", "S3")):
                yield Row(row["text"][:600], label, "openai_moderation")
        yield from self._seeded(label, 350, "urgent")

    def _seeded(self, label: str, count: int, name: str | None = None) -> Iterator[Row]:
        for text in self.seeds.sentences(name or label, count):
            yield Row(text, label, "seeds")

    def _healthcare(self) -> Iterator[Row]:
        for label, count in {"administrative": 1800, "medication": 1400, "symptom_triage": 1700, "urgent": 1600}.items():
            yield from self._seeded(label, count)
        for source in ("nursesim", "clinicaflow"):
            for texts, acuity in self.corpus.complaints(source):
                # The card reports those that may wait a little apart from those that need no visit.
                origin = f"{source}_soon" if acuity == "soon" else source
                for text in texts:
                    yield Row(text, "urgent" if acuity == "urgent" else "symptom_triage", origin)
        for row in self.corpus.rows("triage_retail/avey_vignettes/dev.jsonl.gz"):
            diagnosis = row["correct_diagnosis"]
            label = "urgent" if diagnosis in self.mapping["avey_urgent"] else "symptom_triage"
            if label == "urgent" or diagnosis in self.mapping["avey_waits"]:
                yield Row(row["presentation"][:500], label, "avey")
        for number, text in enumerate(self.corpus.medical_questions()):
            if number % 20 == 0:
                yield Row(text, "symptom_triage", "medquad")
        yield from self._seeded("unsupported", 150, "stock")
        yield from self._seeded("unsupported", 150, "order")
        yield from self._general("unsupported")

    def _retail(self) -> Iterator[Row]:
        for label, count in {"stock": 1400, "loyalty": 1000, "order": 1000, "policy": 1300}.items():
            yield from self._seeded(label, count)
        for name in ("administrative", "medication", "symptom_triage", "urgent"):
            yield from self._seeded("unsupported", 120, name)
        for number, text in enumerate(self.corpus.medical_questions()):
            if number % 80 == 0:
                yield Row(text, "unsupported", "medquad")
        yield from self._general("unsupported")

    def _general(self, label: str) -> Iterator[Row]:
        yield from self._seeded(label, 60, "smalltalk")
        for row in self.corpus.rows("injection/slabs/train_clean.jsonl.gz"):
            if row["label"] == 0 or len(row["text"]) % 5 == 0:
                yield Row(row["text"][:400], label, "slabs")
        for number, row in enumerate(self.corpus.rows("routing/mmlu_pro_pairs/dev.jsonl.gz")):
            if number % 20 == 0 and row["category"] != "health":
                yield Row(row["question"][:400], label, "mmlu_pro")
        for row in self.corpus.rows("routing/routellm_eval/mtbench_question.jsonl"):
            yield Row(row["turns"][0][:400], label, "mt_bench")
        for number, (text, source) in enumerate(self.corpus.tool_requests()):
            if number % 8 == 0:
                yield Row(text[:400], label, source)


def normalised(text: str) -> str:
    """Return the form in which two texts count as the same."""
    return re.sub(r"[^a-z0]+", " ", re.sub(r"\d+", "0", text.lower())).strip()


def capped(rows: Iterable[Row], limit: int, head: str) -> list[Row]:
    """Drop duplicates and texts under two labels, then keep at most `limit` per label and source."""
    labels: dict[str, set[str]] = defaultdict(set)
    groups: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        key = normalised(row.text)
        if key:
            labels[key].add(row.label)
            groups[row.label, row.source].setdefault(key, row)
    result = []
    for (label, source), unique in sorted(groups.items()):
        kept = [row for key, row in unique.items() if len(labels[key]) == 1]
        random.Random(f"{head}{label}{source}").shuffle(kept)
        # What nobody else can supply is hardly cut: the desks' own sentences.
        share = 3 * limit if source == "seeds" else limit
        result.extend(kept[:share])
    return result


def is_test(row: Row) -> bool:
    """Hold out a fixed tenth, the same under every rebuild."""
    return hashlib.sha256(normalised(row.text).encode()).digest()[0] < 26


def write(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as packed JSON lines without a time stamp; return their number."""
    lines = [json.dumps({"text": row.text, "label": row.label, "source": row.source}, ensure_ascii=False) for row in rows]
    path.write_bytes(gzip.compress(("\n".join(sorted(lines)) + "\n").encode(), mtime=0))
    return len(lines)


def main() -> None:
    """Write `train.jsonl.gz`, `test.jsonl.gz` and `sources.json` of every head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    builder = Builder(Corpus(parser.parse_args().data))
    for head in HEADS:
        folder = HERE / head
        folder.mkdir(exist_ok=True)
        rows = capped(builder.rows(head), PER_SOURCE[head], head)
        counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for row in rows:
            counts[row.source][row.label] += 1
        sizes = [write(folder / f"{part}.jsonl.gz", [r for r in rows if is_test(r) == (part == "test")]) for part in ("train", "test")]
        described = {name: {"licence": LICENCES[name], "rows": labels} for name, labels in sorted(counts.items())}
        (folder / "sources.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        print(f"{head}: {sizes[0]} train, {sizes[1]} test")


if __name__ == "__main__":
    main()
