"""Customer questions with policy passages, from tau2 and ABCD (MIT), GitHub's policies (CC0) and Bitext's wording (CDLA)."""

import random
import re
from pathlib import Path
from typing import Any

import yaml
from answer_rows import Document, Neighbours, assemble, content, sentences, served
from rows import DATA, Row, read_jsonl, share

TRAIN_ROWS, HELD_OUT_ROWS = 1400, 140
QUESTIONS = Path(__file__).with_name("retail_questions.yaml")
_CATEGORY = re.compile(
    r"^doc_(?:business_)?(?:bank_accounts|credit_cards|checking_accounts|savings_accounts|buy_now_pay_later|everyone_pay)_"
)
_FACT = re.compile(r"^(?:- ([A-Z][^:|\n]{5,45}): ([^\n|]{1,60})|\| ([A-Z][^|\n]{5,45}) \| ([^|\n]{1,40}) \|)$", re.MULTILINE)
_UNFIT = re.compile(r"value not available|\b[a-z]+_[a-z]+_[a-z_]*\d|transfer_to_human")
_LOOSE_KEY = re.compile(r"^(?:You|If|They|Example|All|No|Note|Use|For)\b")
_DULL = {
    "(intro)",
    "overview",
    "tips",
    "notes",
    "summary",
    "purpose",
    "examples",
    "example",
    "contact us",
    "quick reference",
    "detail",
    "item",
    "feature",
}
_ASK_FACT = ["What is the {k} of the {p}?", "{k} for {p}?", "Can you tell me the {k} for the {p}?", "what's the {k} on my {p}"]
_ASK_PART = ["What should I know about {k} for {p}?", "Can you explain {k} ({p})?", "I have a question about {k} with {p}.", "{p}: {k}?"]
_ASK_POLICY = ["What does the {p} say about {k}?", "Where do your {p} stand on {k}?", "What are the rules on {k}?"]
_NO_ANSWER_INTENTS = {
    "create_account",
    "newsletter_subscription",
    "review",
    "get_invoice",
    "check_invoice",
    "delivery_options",
    "delivery_period",
    "place_order",
    "registration_problems",
    "delete_account",
    "complaint",
    "check_cancellation_fee",
    "switch_account",
}


def _side(group: str) -> bool:
    return share(group, "retail-split") < 0.18


def units(text: str) -> list[str]:
    """Split a policy text into sentences and list items, without their marks."""
    found: list[str] = []
    for line in text.split("\n"):
        clean = re.sub(r"\*\*|`", "", re.sub(r"^\s*(?:[-*>]|\d+\.|#+|N/A:)\s+", "", line)).strip()
        cells = [cell.strip() for cell in clean.strip("|").split("|") if cell.strip(" -:")] if clean.startswith("|") else []
        if clean.startswith("|"):
            found.extend([": ".join(cells)] if cells else [])
        elif clean:
            found.extend(sentences(clean))
    return found


def bank_sections() -> list[Document]:
    """Return the customer-facing sections of the bank's articles, one document each."""
    documents = []
    for record in read_jsonl(DATA / "retrieval/tau2_banking_knowledge/corpus.jsonl.gz"):
        if record["title"].startswith("Internal") or "(general)" in record["_id"] or _UNFIT.search(record["text"]):
            continue
        name = re.sub(r"_\d+$", "", _CATEGORY.sub("", record["_id"]))
        product = re.sub(r" \((?:checking|savings|general)\)", "", name.replace("_", " ").title())
        for number, part in enumerate(re.split(r"^##+ ", record["text"], flags=re.MULTILINE)[1:]):
            heading, _, body = part.partition("\n")
            if len(body.split()) >= 8:
                documents.append(
                    Document(f"{record['_id']}#{number}", f"{product} — {heading.strip()}", body.strip(), f"bank/{name}", heading.strip())
                )
    return documents


def policy_sections() -> list[Document]:
    """Return the current sections of GitHub's site policies that read as prose."""
    documents = []
    for record in read_jsonl(DATA / "retrieval/github_site_policy_versions/corpus.jsonl.gz"):
        meta = record["metadata"]
        policy, _, section = record["title"].partition(" — ")
        section = re.sub(r"^(?:[A-Z]?\d*[.\d]*\.?)\s+", "", section).strip(". ")
        if meta["valid_to"] is None and section and 15 <= len(record["text"].split()) <= 400:
            documents.append(Document(record["_id"], f"{policy} — {section}", record["text"], meta["doc"], section))
    return documents


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[*`|]", " ", text).split())


def _lower_first(text: str) -> str:
    return text[0].lower() + text[1:] if text[1:2].islower() else text


def _title(document: Document, rng: random.Random) -> str:
    """Drop the heading from four titles in ten, so that the text has to be read."""
    return document.title.split(" — ")[0] if document.facet and rng.random() < 0.4 else document.title


class Builder:
    """Write rows for one side of the split."""

    def __init__(self, documents: list[Document]) -> None:
        self._documents = documents
        self._near = Neighbours(documents)

    def _others(self, document: Document, rng: random.Random) -> list[Document]:
        near = [d for d in self._near.near(document, same_subject=False) if d.facet != document.facet or rng.random() < 0.5]
        same = [d for d in self._near.near(document, same_subject=True) if d.facet != document.facet] if document.facet else []
        chosen = [*rng.sample(near, min(len(near), 2)), *rng.sample(self._documents, 2)]
        return chosen + (rng.sample(same, min(len(same), 2)) if rng.random() < 0.5 else [])

    def row(self, key: str, document: Document, question: str, picked: list[int], *, answerable: bool | None = None) -> Row | None:
        """Write one row on `document`, or one without its passages."""
        rng = random.Random(key)
        found = units(document.text)
        if answerable is None:
            answerable = rng.random() >= 0.2
        if answerable and (not picked or any(not 2 <= len(found[i].split()) <= 40 for i in picked)):
            return None
        others = {d.id: d for d in self._others(document, rng) if d.id != document.id and (answerable or d.subject != document.subject)}
        documents = ([document] if answerable else []) + list(others.values())
        windows = served(question, [(d.id, _title(d, rng), d.text) for d in documents])
        mine = [(title, text) for name, title, text in windows if name == document.id]
        gold, answer = None, list[str]()
        for title, text in mine:
            # Only what the window shows may be said; a window may show one of two sentences.
            shown = [found[i] for i in picked if _plain(found[i]).rstrip(".") in _plain(text)]
            if len(shown) > len(answer):
                gold, answer = (title, text), shown
        if answerable and gold is None:
            return None
        rest = [(title, text) for _, title, text in windows if (title, text) != gold]
        return assemble(
            key=key,
            source=key.split(":", maxsplit=1)[0],
            group=document.subject,
            question=question,
            gold=gold,
            answer=answer,
            distractors=rest[: rng.choice([0, 1, 2, 2, 2]) if gold else rng.choice([1, 2, 3, 3])],
            rng=rng,
        )

    def facts(self, document: Document) -> list[Row | None]:
        """Ask for each `key: value` of a bank section."""
        product, found = document.title.split(" — ")[0], units(document.text)
        rows = []
        for match in list(_FACT.finditer(document.text))[:2]:
            name = (match[1] or match[3]).strip()
            picked = [i for i, unit in enumerate(found) if unit.startswith(f"{name}: ")][:1]
            if name.lower() not in _DULL and picked and not _LOOSE_KEY.match(name):
                asked = random.Random(document.id + name).choice(_ASK_FACT).format(k=_lower_first(name), p=product)
                rows.append(self.row(f"tau2_banking:{document.id}:{name}", document, asked, picked))
        return rows

    def part(self, document: Document) -> Row | None:
        """Ask about a section as a whole."""
        owner, bank = document.title.split(" — ")[0], document.subject.startswith("bank/")
        if document.facet.lower() in _DULL:
            return None
        forms = _ASK_PART if bank else _ASK_POLICY
        asked = random.Random(document.id).choice(forms).format(k=_lower_first(document.facet).rstrip("?"), p=owner)
        found = units(document.text)
        wanted = content(f"{asked} {document.facet}")
        usable = [i for i, unit in enumerate(found) if 6 <= len(unit.split()) <= 32 and "|" not in unit and unit[-1] not in ":?"][:6]
        best = sorted(usable, key=lambda i: 0.7 * i - len(wanted & content(found[i])))[:2]
        picked = sorted(best) if len(best) == 2 and abs(best[0] - best[1]) <= 2 else best[:1]
        return self.row(f"{'tau2_banking' if bank else 'github_policy'}:{document.id}", document, asked, picked)


def _support() -> tuple[list[Document], dict[str, list[dict[str, Any]]]]:
    questions: dict[str, list[dict[str, Any]]] = yaml.safe_load(QUESTIONS.read_text(encoding="utf-8"))
    records = read_jsonl(DATA / "retrieval/support_policy_docs/corpus.jsonl.gz")
    documents = [Document(r["_id"], r["title"], r["text"], r["_id"], "") for r in records]
    return documents, questions


def _support_rows(builder: Builder, documents: list[Document], questions: dict[str, list[dict[str, Any]]]) -> list[Row | None]:
    rows: list[Row | None] = []
    for document in documents:
        found = units(document.text)
        for entry in questions.get(document.id, []):
            starts = tuple(entry["answer"])
            picked = [i for i, unit in enumerate(found) if unit.startswith(starts)][:2]
            if not picked:
                raise ValueError(f"{document.id}: no sentence starts with {starts}")
            for number, asked in enumerate(entry["ask"] * 5):
                key = f"support_policy:{document.id}:{starts[0][:30]}:{number}"
                rows.append(builder.row(key, document, asked, picked, answerable=number % 5 != 4))
    return rows


def _bitext_rows(builder: Builder, documents: list[Document], limit: int) -> list[Row | None]:
    utterances = [u for u in read_jsonl(DATA / "triage_retail/bitext_support/train.jsonl.gz") if u["intent"] in _NO_ANSWER_INTENTS]
    rng = random.Random(11)
    return [
        builder.row(f"bitext:{n}", rng.choice(documents), u["utterance"], [], answerable=False)
        for n, u in enumerate(rng.sample(utterances, limit))
    ]


def build() -> tuple[list[Row], list[Row]]:
    """Return train and held-out rows; a product, policy or document is wholly on one side."""
    support, questions = _support()
    sections = [*bank_sections(), *policy_sections()]
    built = []
    for held_out, limit in ((False, TRAIN_ROWS), (True, HELD_OUT_ROWS)):
        mine = [d for d in sections if _side(d.subject) is held_out]
        policies = [d for d in support if _side(d.subject) is held_out]
        builder = Builder([*mine, *policies * 3])
        rows = _support_rows(builder, policies, questions)
        if not held_out:
            rows += _bitext_rows(builder, policies, 50)
        rest = [row for d in mine for row in ([*builder.facts(d), builder.part(d)] if d.subject.startswith("bank/") else [builder.part(d)])]
        rest.sort(key=lambda row: share(row.id, "retail-pick") if row else 1.0)
        kept = [row for row in [*rows, *rest] if row and (row.gold or row.variables["passages"])]
        built.append(kept[:limit])
    return built[0], built[1]
