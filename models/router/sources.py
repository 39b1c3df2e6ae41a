"""Reads the public sets that the router's training data are drawn from."""

import csv
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LICENCES = {
    "clinc150": "CC-BY-3.0",
    "hwu64": "CC-BY-4.0",
    "banking77": "CC-BY-4.0",
    "bitext": "CDLA-Sharing-1.0",
    "medquad": "CC-BY-4.0",
    "scifact": "CC-BY-4.0",
    "pubmedqa": "MIT",
    "github_policy": "CC0-1.0",
    "mts_dialog": "CC-BY-4.0",
    "avey": "MIT",
    "nursesim": "MIT",
    "nursesim_soon": "MIT",
    "clinicaflow": "MIT",
    "mmlu_pro": "MIT",
    "mt_bench": "Apache-2.0",
    "bfcl": "Apache-2.0",
    "spider": "CC-BY-SA-4.0",
    "defog": "Apache-2.0",
    "advbench": "MIT",
    "slabs": "MIT",
    "openai_moderation": "MIT",
    "abcd": "MIT",
    "seeds": "hand-written for Strata",
}


@dataclass(frozen=True)
class Row:
    """One labelled text and where it comes from."""

    text: str
    label: str
    source: str


@dataclass(frozen=True)
class Corpus:
    """The folder of public sets."""

    root: Path

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of one JSON lines file, packed or not."""
        path = self.root / name
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    def intents(self, source: str) -> Iterator[tuple[str, str]]:
        """Yield (text, intent) of an intent set."""
        files = {
            "clinc150": ["routing/clinc150/train.jsonl.gz", "routing/clinc150/oos_train_plus250.jsonl"],
            "hwu64": ["routing/hwu64/train.jsonl.gz"],
            "banking77": ["routing/banking77/train.jsonl.gz"],
        }
        if source == "bitext":
            for row in self.rows("triage_retail/bitext_support/train.jsonl.gz"):
                yield row["utterance"], row["intent"]
            return
        for name in files[source]:
            for row in self.rows(name):
                yield row["text"], row["intent"]

    def medical_questions(self) -> Iterator[str]:
        """Yield MedQuAD titles as a person would type them."""
        for row in self.rows("retrieval/medquad/corpus.jsonl.gz"):
            title = re.sub(r"\s*\?[\s?]*$", "?", row["title"]).replace("What is (are)", "What is")
            yield title.replace("Do you have information about", "information about")

    def tool_requests(self) -> Iterator[tuple[str, str]]:
        """Yield (text, source) of requests that need a call or a query."""
        for name in ("simple_python", "multiple", "parallel", "parallel_multiple", "multi_turn_base"):
            for row in self.rows(f"tools/bfcl_v4/question/{name}.jsonl.gz"):
                yield row["question"][0][0]["content"], "bfcl"
        for row in self.rows("tools/spider/dev.jsonl"):
            yield row["question"], "spider"
        with (self.root / "tools/defog_sql/questions_gen_sqlite.csv").open(encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                yield row["question"], "defog"

    def narratives(self) -> Iterator[tuple[str, str]]:
        """Yield (text, source) of clinical notes and conversations."""
        for row in self.rows("triage_retail/mts_dialog/train.jsonl.gz"):
            yield row["dialogue"][:700], "mts_dialog"
        for row in self.rows("triage_retail/avey_vignettes/dev.jsonl.gz"):
            yield f"{row['demographics']}. {row['presentation']}"[:700], "avey"

    def complaints(self, source: str) -> Iterator[tuple[list[str], str]]:
        """Yield (ways to say it, acuity) of triage vignettes; acuity is `urgent`, `soon` or `self_care`."""
        if source == "nursesim":
            for row in self.rows("retrieval/triage_vignettes/nursesim_scenarios.jsonl"):
                category = str(row["triage_category"])
                acuity = {"1": "urgent", "2": "urgent", "3": "soon"}.get(category, "self_care")
                history = {key.replace(" ", "_"): value for key, value in row["history"].items()}
                said = row["chief_complaint"]
                yield [said, f"{said} {history.get('time_course') or ''}".strip()], acuity
        else:
            for row in self.rows("retrieval/triage_vignettes/clinicaflow_vignettes.jsonl"):
                acuity = "urgent" if row["labels"]["gold_escalation_required"] else "self_care"
                given = row["input"]
                said = given["chief_complaint"]
                person = f"{given['demographics'].get('age', '')} year old {given['demographics'].get('sex', '')}"
                yield [said, f"{said}. {given['history']}", f"{person}. {said}. {given['history']}"], acuity
