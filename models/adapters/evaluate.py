"""Recompute the numbers of an adapter's card: bare base and adapter on the same held-out rows, greedy and unconstrained."""

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from card import write_card
from heap import keep_heap
from peft import PeftModel
from prompts import PROMPT_FILES, load_prompt, render
from rows import Row, read_rows
from scoring import compare, score
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

HERE = Path(__file__).resolve().parent


@contextmanager
def base_only(model: PeftModel) -> Iterator[None]:
    """Switch the adapter off, so that the same weights in memory answer as the bare base."""
    with model.disable_adapter():
        yield


@contextmanager
def merged(model: PeftModel) -> Iterator[None]:
    """Fold the adapter into the weights, which generates faster and says the same."""
    model.merge_adapter()
    try:
        yield
    finally:
        model.unmerge_adapter()


def generate(model: PeftModel, tokenizer: PreTrainedTokenizerBase, name: str, rows: list[Row], size: int = 16) -> list[str]:
    """Answer each row greedily; rows of like length share a batch."""
    prompt = load_prompt(name)
    texts = [tokenizer.apply_chat_template(render(prompt, row.variables), tokenize=False, add_generation_prompt=True) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: len(texts[index]))
    replies = [""] * len(rows)
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        inputs = tokenizer([texts[i] for i in batch], return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=prompt["max_tokens"], do_sample=False, pad_token_id=2, eos_token_id=2)
        for index, tokens in zip(batch, output[:, inputs["input_ids"].shape[1] :], strict=True):
            replies[index] = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return replies


def evaluate(name: str, base: Path, folder: Path, limit: int) -> dict[str, Any]:
    """Return the comparison of base and adapter on the first `limit` held-out rows."""
    rows = read_rows(folder / "heldout.jsonl")[:limit]
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder).eval()
    found: dict[str, list[dict[str, float | None]]] = {}
    samples: list[dict[str, str]] = [{"id": row.id, "target": row.target} for row in rows]
    seconds = {}
    for side, context in (("base", base_only(model)), ("adapter", merged(model))):
        began = time.monotonic()
        with context:
            replies = generate(model, tokenizer, name, rows)
        seconds[side] = round(time.monotonic() - began)
        found[side] = [score(name, row, reply) for row, reply in zip(rows, replies, strict=True)]
        for sample, reply in zip(samples, replies, strict=True):
            sample[side] = reply
    return {
        "adapter": name,
        "rows": len(rows),
        "decoding": "greedy, unconstrained, float32, CPU",
        "seconds": seconds,
        "metrics": compare(found["base"], found["adapter"]),
        "samples": samples[:6],
    }


def main() -> None:
    """Evaluate one adapter, print the table, and with --write renew metrics.json and the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", required=True, choices=sorted(PROMPT_FILES))
    parser.add_argument("--base", type=Path, required=True, help="folder written by models/base/export.py")
    parser.add_argument("--folder", type=Path, help="default: models/adapters/<adapter>")
    parser.add_argument("--limit", type=int, default=80)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write metrics.json and README.md")
    arguments = parser.parse_args()
    keep_heap()
    torch.set_num_threads(arguments.threads)
    folder = arguments.folder or HERE / arguments.adapter
    result = evaluate(arguments.adapter, arguments.base, folder, arguments.limit)
    for metric, found in result["metrics"].items():
        print(f"{metric:28} n={found['n']:3} base {found['base']:.3f} adapter {found['adapter']:.3f} margin {found['margin_interval']}")
    if arguments.write:
        text = json.dumps(result, indent=2, ensure_ascii=False)
        (folder / "metrics.json").write_text(f"{text}\n", encoding="utf-8")
        write_card(folder, result)


if __name__ == "__main__":
    main()
