"""Writes the anchored documents and the tables of the retail domain from ABCD and tau2-bench."""
# ruff: noqa: INP001 - a script in a folder of data

import argparse
import gzip
import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ORDERS, PRODUCTS, MEMBERS, SEED = 200, 40, 60, 20261121
# Guidelines that only say where an agent clicks to find the answer: they hold no answer themselves.
NO_ANSWER = ("abcd/single-item-query-", "abcd/storewide-query-")
ORIGIN = {
    "abcd": ("ABCD agent guidelines", "2022-01-26", "https://github.com/asappresearch/abcd"),
    "tau2": ("tau2-bench retail policy", "2026-08-18", "https://github.com/sierra-research/tau2-bench"),
}
STORES = (
    ("S-0104", "Denver", "CO"), ("S-0112", "Austin", "TX"), ("S-0231", "Seattle", "WA"), ("S-0260", "Chicago", "IL"),
    ("S-0345", "Phoenix", "AZ"), ("S-0408", "Boston", "MA"), ("S-0517", "San Diego", "CA"), ("S-0622", "Columbus", "OH"),
    ("S-0790", "Charlotte", "NC"), ("S-0931", "Portland", "OR"), ("S-1188", "Houston", "TX"), ("S-1502", "New York", "NY"),
)  # fmt: skip


def documents(corpus: Path) -> Iterator[dict[str, Any]]:
    """Yield the retail policies that hold an answer, in the document format of a domain."""
    with gzip.open(corpus, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["_id"].startswith(("tau2/airline", "tau2/retail/domain-basic", *NO_ANSWER)):
                continue
            source, date, url = ORIGIN[row["metadata"]["source"]]
            yield {
                "id": row["_id"], "title": row["title"], "text": row["text"], "version": "1", "effective_from": date,
                "source": source, "licence": "MIT", "url": url, "metadata": {"topic": row["title"].split(" — ")[0]},
            }  # fmt: skip


def literal(value: object) -> str:
    """Return the SQL literal of one value."""
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"


def insert(table: str, rows: Iterable[tuple[object, ...]]) -> str:
    """Return one INSERT statement, a row per line."""
    values = ",\n".join("(" + ", ".join(map(literal, row)) + ")" for row in rows)
    return f"INSERT INTO {table} VALUES\n{values};\n"


def invented(products: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the statements of the tables that no public data set holds."""
    draw = random.Random(SEED)
    yield insert("stores", ((*store, "09:00", draw.choice(("20:00", "21:00", "22:00"))) for store in STORES))
    pairs = [(store[0], product["product_id"]) for product in products[:PRODUCTS] for store in STORES]
    yield insert("stock", ((*pair, max(0, draw.randint(-4, 30))) for pair in pairs))
    levels = draw.choices(("Bronze", "Silver", "Gold"), weights=(5, 3, 2), k=MEMBERS)
    members = []
    for number, level in enumerate(levels):
        points = draw.randint(0, 4800)
        members.append((f"M-{100231 + 37 * number}", level, points, points // 5, "2027-03-31"))
    yield insert("loyalty", members)


def copied(database: dict[str, Any]) -> Iterator[str]:
    """Yield the statements of the tables that tau2-bench holds; people's names and addresses stay out."""
    products = list(database["products"].values())
    yield insert("products", ((product["product_id"], product["name"]) for product in products))
    variants = [(product["product_id"], item) for product in products for item in product["variants"].values()]
    yield insert(
        "items",
        (
            (item["item_id"], key, ", ".join(f"{k} {v}" for k, v in item["options"].items()), item["price"], int(item["available"]))
            for key, item in variants
        ),
    )
    orders = list(database["orders"].values())[:ORDERS]
    totals = [round(sum(item["price"] for item in order["items"]), 2) for order in orders]
    parcels = [[code for part in order["fulfillments"] for code in part["tracking_id"]] for order in orders]
    yield insert(
        "orders",
        (
            (order["order_id"], order["status"], ", ".join(codes) or None, total)
            for order, codes, total in zip(orders, parcels, totals, strict=True)
        ),
    )
    rows = [(order["order_id"], item) for order in orders for item in order["items"]]
    yield insert("order_items", ((key, item["item_id"], item["product_id"], item["price"]) for key, item in rows))


def main() -> None:
    """Write `documents/policies.jsonl` and `tables.sql` from the folder given with --data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds retrieval/ and tools/")
    data = parser.parse_args().data
    target = Path(__file__).parent.parent / "retail"
    rows = list(documents(data / "retrieval" / "support_policy_docs" / "corpus.jsonl.gz"))
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (target / "documents" / "policies.jsonl").write_text("".join(lines), encoding="utf-8")
    with gzip.open(data / "tools" / "tau2" / "retail" / "db.json.gz", "rt", encoding="utf-8") as source:
        database = json.load(source)
    products = list(database["products"].values())
    schema = (Path(__file__).parent / "retail_schema.sql").read_text()
    (target / "tables.sql").write_text(schema + "".join([*copied(database), *invented(products)]), encoding="utf-8")
    sys.stdout.write(f"{len(rows)} documents, {(target / 'tables.sql').stat().st_size} bytes of tables\n")


if __name__ == "__main__":
    main()
