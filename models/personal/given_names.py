"""Builds the list of given names that guardrail knows people by: names of registers all over the world, without words and places.

    pip download --no-deps nomquamgender==0.1.4 && unzip nomquamgender-*.whl
    python models/personal/given_names.py --names nomquamgender/name_data.json --texts FOLDER

Names and how many people and sources bear them: Van Buskirk, Clauset, Larremore 2022, "An Open-Source Cultural Consensus Approach to
Name-Based Gender Classification" (MIT). `FOLDER` holds JSON lines, which tell what else people write with a capital letter.
"""

import argparse
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "given_names.txt.gz"
SOURCES, BEARERS = 10, 1000
# A name that so many bear may more often be written small, and stand where places stand.
POPULAR = 20_000
# What measures may not make the list.
_LEFT_OUT = ("sealed", "heldout", "bbq", "winobias", "bold", "crows", "presidio", "asq_phi", "cdc")
_WORD = re.compile(r"(?<![\w'’-])(?:(?P<place>(?:in|at|near|of|from)\s+))?(?P<word>[A-Za-z]+)(?![\w-])")  # noqa: RUF001 - curly quotes
_OTHERS_TEXT = """
january february march april may june july august israel jordan virginia georgia carolina angeles francisco diego antonio nevada
montana dakota kenya india ireland berlin denver cleveland houston dallas atlanta chelsea santa san los roman christian jan dan
allegra lyrica mercedes dell alexa siri apple google alba penny royal prince princess king duke earl major deacon bishop pope
parkinson addison graves down paget bell hodgkin wilson crohn marfan turner kaposi rico yale lincoln hamilton kennedy clinton
adelaide asia austin cali diamond geneva heath hunter london milan nova paris pearl ruby reed garland trinity santiago easton dean
roosevelt newton warner palmer reynolds powell adams johnson miller davis jackson morton murray marshall franklin stewart
"""
_OTHERS = frozenset(_OTHERS_TEXT.split())


def strings(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def lines(folder: Path) -> Iterator[str]:
    """Yield the texts of every file of JSON lines below `folder` that may be read."""
    for path in sorted(folder.rglob("*.jsonl*")):
        if any(part in str(path) for part in _LEFT_OUT):
            continue
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", errors="replace") as file:
            for line in file:
                try:
                    yield from strings(json.loads(line))
                except ValueError:
                    continue


def usage(folder: Path) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Return how often each word stands in lower case, with a capital letter, and with one where places stand."""
    small, capital, places = Counter[str](), Counter[str](), Counter[str]()
    for text in lines(folder):
        if text.islower():
            continue
        for match in _WORD.finditer(text):
            word = match["word"]
            if word.islower():
                small[word] += 1
            elif word[0].isupper() and word[1:].islower():
                capital[word.lower()] += 1
                places[word.lower()] += match["place"] is not None
    return small, capital, places


def main() -> None:
    """Write the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    arguments = parser.parse_args()
    registers = json.loads(arguments.names.read_text())
    small, capital, places = usage(arguments.texts)
    kept = sorted(
        name for name, (sources, bearers, *_) in registers.items()
        if sources >= SOURCES and bearers >= BEARERS and name.isascii() and name.isalpha() and len(name) >= 3 and name not in _OTHERS
        and small[name] <= (0.25 if bearers > POPULAR else 0.1) * capital[name]
        and (places[name] < 3 or places[name] <= (0.34 if bearers > POPULAR else 0.2) * capital[name])
    )  # fmt: skip
    # No time of writing in the file: the same names are the same bytes.
    OUT.write_bytes(gzip.compress("\n".join(kept).encode(), mtime=0))
    print(len(kept), OUT.stat().st_size)


if __name__ == "__main__":
    main()
