# ruff: noqa: INP001 - a script
"""Has a model write what an answer to each judged query might read like, for `strata eval retrieval -o hypotheses=FILE`.

    python services/retriever/bench/write_hypotheses.py --data FOLDER --split test --out FILE [--most 200] [--url URL]

The prompt is the one of `domains/general/prompts/hypothesis@v1.yaml`. Without `--url` it starts the engine of the shipped configuration on
the shipped base model and ends it. Each text is written when it is there, so that a run that was ended goes on where it was. Prints one
line of JSON: how many texts, how many tokens, and how long one took.
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import httpx
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment

from retriever import beir, metrics
from testkit.vllm import BASE_MODEL, vllm_server

_PROMPT = Path(__file__).parents[3] / "domains/general/prompts/hypothesis@v1.yaml"
_AT_ONCE = 4
_SECONDS = 600.0


@contextmanager
def engine(arguments: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """Give the address, the model and the key of the engine that is named, or of one that ends with this script."""
    if arguments.url:
        yield arguments.url.rstrip("/"), arguments.model, arguments.key
        return
    with tempfile.TemporaryDirectory() as folder, vllm_server(Path(folder)) as started:
        yield started.url, BASE_MODEL, started.api_key


async def write(client: httpx.AsyncClient, model: str, prompt: dict[str, Any], query: str) -> tuple[str, int, float]:
    """Return the text for one query, its tokens, and the milliseconds it took."""
    environment = ImmutableSandboxedEnvironment()
    messages = [
        {"role": turn["role"], "content": environment.from_string(turn["content"]).render(question=query)} for turn in prompt["messages"]
    ]
    body = {"model": model, "messages": messages, "max_tokens": prompt["max_tokens"], "temperature": prompt["temperature"]}
    started = time.perf_counter()
    answer = await client.post("/v1/chat/completions", json=body)
    answer.raise_for_status()
    done = answer.json()
    text = str(done["choices"][0]["message"]["content"]).strip()
    return text, int(done["usage"]["completion_tokens"]), (time.perf_counter() - started) * 1000


async def write_all(url: str, model: str, key: str, queries: dict[str, str], out: TextIO) -> list[tuple[str, int, float]]:
    """Write a row for each query, a few at once, as each is there; return texts, tokens and milliseconds."""
    prompt, room = yaml.safe_load(_PROMPT.read_text(encoding="utf-8")), asyncio.Semaphore(_AT_ONCE)

    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=_SECONDS) as client:

        async def one(name: str, query: str) -> tuple[str, int, float]:
            async with room:
                made = await write(client, model, prompt, query)
            # A model that says nothing gives no hypothesis, as in a workflow.
            if made[0]:
                out.write(json.dumps({"_id": name, "text": made[0]}) + "\n")
                out.flush()
            return made

        return await asyncio.gather(*(one(name, query) for name, query in queries.items()))


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder in BEIR's layout")
    parser.add_argument("--split", default="")
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines that is written")
    parser.add_argument("--most", type=int, default=0, help="so many queries at random (seed 0); 0 takes all")
    parser.add_argument("--url", default="", help="an OpenAI-compatible engine that runs already")
    parser.add_argument("--model", default=BASE_MODEL)
    parser.add_argument("--key", default=os.environ.get("STRATA_TEST_VLLM_API_KEY", ""))
    arguments = parser.parse_args()
    collection = beir.load(arguments.data, arguments.split)
    chosen = [name for name, judged in collection.judgements.items() if judged.keys() & collection.documents.keys()]
    if 0 < arguments.most < len(chosen):
        chosen = sorted(random.Random(0).sample(chosen, arguments.most))
    there = {row["_id"] for _, row in beir.rows(arguments.out)} if arguments.out.exists() else set[str]()
    asked = {name: collection.queries[name] for name in chosen if name not in there}
    with engine(arguments) as (url, model, key), arguments.out.open("a", encoding="utf-8") as out:
        written = asyncio.run(write_all(url, model, key, asked, out))
    tokens = [count for _, count, _ in written]
    line = {
        "model": model,
        "n": len(written),
        "there_before": len(there),
        "empty": sum(not text for text, _, _ in written),
        "tokens_mean": round(sum(tokens) / max(len(tokens), 1), 1),
        "at_once": _AT_ONCE,
        "milliseconds": metrics.latency([taken for _, _, taken in written]),
    }
    print(json.dumps(line))  # noqa: T201 - its output


if __name__ == "__main__":
    main()
