"""Measures what guardrail adds to a request: input of 200 tokens, output of 150 tokens over five passages.

OMP_NUM_THREADS=1 python services/guardrail/bench/bench_checks.py [--rounds 40] [--input-only]
"""

# ruff: noqa: INP001 - a script, not a package

import argparse
import asyncio
import gzip
import itertools
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from guardrail.checks.base import Answer, Conversation, Piece, Source
from guardrail.main import create_checks
from guardrail.panel import Panel
from guardrail.releasing import Releaser
from guardrail.screening import Screener
from guardrail.settings import Settings

ROOT = Path(__file__).parents[3]
_INPUT = (
    "My name is Angela Whitfield and my phone is 212-555-0147. Since Tuesday my son has had a fever of 38.5 and a dry cough. "
    "He sleeps badly. "
    "We gave him acetaminophen twice a day as the label says, and he drinks enough water and some soup. The rash on his arm came back "
)


def documents(count: int) -> list[str]:
    """Return texts of the shipped healthcare collection."""
    with gzip.open(ROOT / "domains/healthcare/documents/nih-answers.jsonl.gz", "rt") as file:
        return [" ".join(json.loads(line)["text"].split()[:170]) for line in itertools.islice(file, count)]


async def measure(label: str, rounds: int, work: Callable[[int], Awaitable[object]]) -> None:
    """Print the percentiles of `work`, by the clock and of CPU in all threads; texts differ in every round so that no cache helps."""
    for number in range(-3, 0):
        await work(number)
    times, spent = [], []
    for number in range(rounds):
        started, before = time.perf_counter(), time.process_time()
        await work(number)
        times.append((time.perf_counter() - started) * 1000)
        spent.append((time.process_time() - before) * 1000)
    found = {"p50_ms": statistics.median(times), "p95_ms": statistics.quantiles(times, n=20)[18], "cpu_p50_ms": statistics.median(spent)}
    print(json.dumps({"what": label, "n": rounds} | {name: round(value, 1) for name, value in found.items()}))  # noqa: T201


async def main() -> None:
    """Measure both directions."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--input-only", action="store_true")
    options = parser.parse_args()
    rounds = options.rounds
    checks = create_checks(Settings(STRATA_HOME=ROOT))
    texts = documents(5 * (rounds + 3))
    with ThreadPoolExecutor(4) as pool:
        gate = Panel([c for c in checks.input if c.name == "size"], pool)
        screener = Screener(Panel([c for c in checks.input if c.name != "size"], pool), gate)
        releaser = Releaser(Panel(checks.output, pool))

        async def screen(number: int) -> object:
            text = " ".join((_INPUT * 3).split()[:150]) + f" {number}"
            return await screener.screen(Conversation((Piece("user", text),)))

        async def release(number: int, *, verbatim: bool) -> object:
            own = texts[5 * (number + 3) : 5 * (number + 4)]
            sources = tuple(Source(str(i), text) for i, text in enumerate(own, 1))
            start = 0 if verbatim else 1
            words = [
                "It is known that "[: 17 * start] + " ".join(text.split()[start:24]).rstrip(".") + f" [{i}]."
                for i, text in enumerate(own, 1)
            ]
            return await releaser.judge(Answer(" ".join(words), sources=sources, require_grounding=True), (), may_read=False)

        await measure("check_input, 200 tokens", rounds, screen)
        if options.input_only:
            return
        await measure("check_output, 150 tokens, 5 passages, quoted", rounds, partial(release, verbatim=True))
        await measure("check_output, 150 tokens, 5 passages, own words", rounds, partial(release, verbatim=False))


if __name__ == "__main__":
    asyncio.run(main())
