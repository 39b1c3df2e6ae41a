"""Draws documents and tool results, harmless and with orders hidden in them, from public sets and hand-written templates."""

import gzip
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pools import HERE, Item, data_sentences, hidden, orders, rows
from twins import Twins

from encoders.reading import read

Json = Any
_CONTEXTS = {
    "email": "injection/bipia/context_email_train.jsonl",
    "table": "injection/bipia/context_table_train.jsonl.gz",
    "code": "injection/bipia/context_code_train.jsonl",
}
_THIRD = 3
_DOCUMENTS = {
    "medquad": ("retrieval/medquad/corpus.jsonl.gz", "text", 61),
    "github_policy": ("retrieval/github_site_policy_versions/corpus.jsonl.gz", "text", 19),
    "tau2_banking": ("retrieval/tau2_banking_knowledge/corpus.jsonl.gz", "text", 7),
    "support_policy": ("retrieval/support_policy_docs/corpus.jsonl.gz", "text", 2),
    "mts_notes": ("triage_retail/mts_dialog/valid.jsonl", "section_text", 2),
    "scifact": ("retrieval/scifact/corpus.jsonl.gz", "text", 41),
}


def bipia_contexts(root: Path, *, test: bool) -> dict[str, list[str]]:
    """Return harmless e-mails, tables and pieces of code; every third one is for measuring."""
    found: dict[str, list[str]] = {}
    for kind, name in _CONTEXTS.items():
        listed = [row["context"] if kind != "code" else "\n".join(row["context"] + row["error"]) for row in rows(root, name)]
        found[kind] = [text.replace("|CONTENT:", "\nCONTENT:") for number, text in enumerate(listed) if (number % _THIRD == 0) == test]
    return found


def poisoned(contexts: Sequence[str], orders: Sequence[str], source: str, seed: int = 5) -> list[Item]:
    """Return every order in one context each, at its start, middle or end by turns."""
    chance = random.Random(seed)
    items = []
    for number, order in enumerate(orders):
        lines = chance.choice(contexts).splitlines() or [""]
        place = (0, len(lines) // 2, len(lines))[number % 3]
        items.append(Item("\n".join([*lines[:place], order, *lines[place:]]), True, source))
    return items


def hidden_documents(root: Path) -> list[Item]:
    """Return e-mails, tables and code with orders of BIPIA categories and templates that no head is trained on."""
    contexts = bipia_contexts(root, test=True)
    _, attacks = hidden(root, test=True)
    text = [item.text for item in attacks if item.source == "bipia text"]
    code = [item.text for item in attacks if item.source == "bipia code"]
    found: list[Item] = []
    for seed in range(4):
        found += poisoned(contexts["email"], text, "bipia text in e-mails", seed)
        found += poisoned(contexts["table"], text, "bipia text in tables", seed)
        found += poisoned(contexts["code"], code, "bipia code in code", seed)
    orders = Twins(HERE / "twins.yaml").texts("document_orders", 150, held_out=True)
    return found + poisoned([*contexts["email"], *contexts["table"]], orders, "held-out templates in documents")


def tool_results(root: Path, *, test: bool) -> list[tuple[Json, str]]:
    """Return harmless tool results as values, with their sources; every third one is for measuring."""
    found: list[tuple[Json, str]] = []
    database = json.loads(_unpacked(root / "tools/tau2/retail/db.json.gz"))
    for part in ("orders", "users", "products"):
        found += [(value, f"tau2 {part}") for value in list(database[part].values())[:240]]
    chats = json.loads((root / "triage_retail/abcd/abcd_sample.json").read_text())
    for chat in chats[:120]:
        turns = [{"from": turn[0], "text": turn[1]} for turn in chat["original"][:10]] if "original" in chat else chat["scenario"]
        found.append(({"ticket": chat["convo_id"], "messages": turns}, "abcd tickets"))
    contexts = bipia_contexts(root, test=test)
    found += [({"results": [{"title": "row", "content": text[:1500]}]}, "bipia tables") for text in contexts["table"][:200]]
    found += list(_written(root))
    chance = random.Random(3)
    chance.shuffle(found)
    return [pair for number, pair in enumerate(found) if (number % _THIRD == 0) == test]


def _written(root: Path) -> Iterator[tuple[Json, str]]:
    twins = Twins(HERE / "twins.yaml")
    said = twins.texts("document_harmless", 900)
    for number in range(0, len(said), 4):
        first, second, third, fourth = (said[number : number + 4] * 4)[:4]
        shape = number // 4 % 4
        if shape == 0:
            yield {"emails": [{"id": number, "subject": first[:40], "body": f"{second} {third}", "read": True}]}, "written mail"
        elif shape == 1:
            yield {"hotel": "Riverside View", "rating": 4.2, "reviews": [first, second, third]}, "written reviews"
        elif shape == 2:
            yield [{"sender": "Ana", "text": first}, {"sender": "Tom", "text": second}, {"sender": "Ana", "text": fourth}], "written chat"
        else:
            yield (
                {"id": str(number), "title": first[:30], "description": second, "participants": ["x@fairview.example"]},
                "written calendar",
            )
    for number, row in enumerate(rows(root, "retrieval/medquad/corpus.jsonl.gz")):
        if number % 160 == 0:
            yield {"query": row["title"], "snippets": [row["text"][:700]]}, "medquad search"


def _unpacked(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def written_out(value: Json, style: int) -> str:
    """Return a value as JSON, indented JSON, YAML or a Python literal."""
    shapes: tuple[Callable[[Json], str], ...] = (
        lambda v: json.dumps(v, ensure_ascii=False),
        lambda v: json.dumps(v, indent=2, ensure_ascii=False),
        lambda v: yaml.safe_dump(v, allow_unicode=True, sort_keys=False, width=1000),
        repr,
    )
    return shapes[style % len(shapes)](value)


def with_order(value: Json, order: str, chance: random.Random) -> Json:
    """Return a copy in which one text of some length also says `order`."""
    copy = json.loads(json.dumps(value))
    places = [(holder, key) for holder, key in _places(copy) if len(holder[key]) > 3]
    holder, key = chance.choice(places)
    text = holder[key]
    holder[key] = chance.choice((order, f"{text} {order}", f"{text}. {order}", f"{order} {text}"))
    return copy


def _places(value: Json) -> Iterator[tuple[Json, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, str):
            yield value, key
        else:
            yield from _places(item)


def harmless_tool_items(root: Path, *, test: bool) -> list[Item]:
    """Return harmless tool results as text."""
    return [Item(written_out(value, number), False, source) for number, (value, source) in enumerate(tool_results(root, test=test))]


def poisoned_tool_items(root: Path, orders: Sequence[str], source: str, *, test: bool) -> list[Item]:
    """Return one tool result for every order."""
    chance = random.Random(11)
    values = [value for value, _ in tool_results(root, test=test)]
    return [
        Item(written_out(with_order(chance.choice(values), order, chance), number), True, source) for number, order in enumerate(orders)
    ]


def harmless_documents(root: Path) -> list[Item]:
    """Return documents that say nothing to an assistant."""
    found = [Item(text, False, f"bipia {kind}") for kind, texts in bipia_contexts(root, test=True).items() for text in texts[:100]]
    for source, (name, key, step) in _DOCUMENTS.items():
        found += [Item(row[key][:2500], False, source) for number, row in enumerate(rows(root, name)) if number % step == 1]
    said = Twins(HERE / "twins.yaml").texts("document_harmless", 150, held_out=True)
    return found + [Item("\n".join(said[start : start + 3]), False, "written documents") for start in range(0, len(said), 3)]


def sentences(root: Path) -> list[Item]:
    """Return sentences of harmless data and orders as they hide there, for training."""
    contexts = bipia_contexts(root, test=False)
    found = list(data_sentences(root))
    for kind, bound in (("email", 100), ("table", 150), ("code", 100)):
        found += [Item(part, False, f"bipia {kind}") for text in contexts[kind][:bound] for part in read(text, "document").parts[:12]]
    found += [Item(text, False, "written documents") for text in Twins(HERE / "twins.yaml").texts("document_harmless", 3500)]
    for item in harmless_tool_items(root, test=False):
        found += [Item(part, False, item.source) for part in read(item.text, "tool").parts]
    for item in (*orders(root), *hidden(root, test=False)[1]):
        parts = read(item.text, "document").parts
        found += [Item(part, True, item.source) for part in parts[:2]]
    return found


def held_out_sentences() -> list[Item]:
    """Return what the held-out templates say; the shipped head knows them too."""
    twins = Twins(HERE / "twins.yaml")
    found = [Item(text, False, "written documents") for text in twins.texts("document_harmless", 700, held_out=True)]
    told = twins.texts("document_orders", 1000, held_out=True)
    return found + [Item(part, True, "written orders") for text in told for part in read(text, "document").parts[:2]]
