"""Train one LoRA adapter on CPU: the loss is on the reply's tokens only, within a time budget."""

import argparse
import hashlib
import json
import logging
import os
import random
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from dataset import build
from heap import keep_heap
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from prompts import PROMPT_FILES, load_prompt, render
from rows import Row, write_rows
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

BASE_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
HERE = Path(__file__).resolve().parent
log = logging.getLogger("train")


@dataclass(frozen=True)
class Recipe:
    """What decides the result besides the rows."""

    rank: int = 8
    alpha: int = 16
    first_layer: int = 10
    learning_rate: float = 6e-4
    warmup_steps: int = 8
    rows_per_step: int = 4
    max_tokens: int = 340
    epochs: int = 1
    minutes: float = 20.0
    seed: int = 7


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt and reply; the reply starts at `start`."""

    ids: list[int]
    start: int


def encode(rows: list[Row], name: str, tokenizer: PreTrainedTokenizerBase, limit: int) -> list[Encoded]:
    """Tokenise rows with the serving prompt; rows over `limit` tokens are left out."""
    prompt = load_prompt(name)
    encoded = []
    for row in rows:
        text = tokenizer.apply_chat_template(render(prompt, row.variables), tokenize=False, add_generation_prompt=True)
        head = tokenizer(text, add_special_tokens=False)["input_ids"]
        tail = tokenizer(f"{row.target}<|im_end|>", add_special_tokens=False)["input_ids"]
        if len(head) + len(tail) <= limit:
            encoded.append(Encoded(ids=head + tail, start=len(head)))
    return encoded


def batches(rows: list[Encoded], size: int, rng: random.Random) -> list[list[Encoded]]:
    """Shuffle rows, then group rows of like length so that little is padding."""
    rows = rows[:]
    rng.shuffle(rows)
    found: list[list[Encoded]] = []
    for start in range(0, len(rows), size * 10):
        window = sorted(rows[start : start + size * 10], key=lambda row: len(row.ids))
        found.extend(window[i : i + size] for i in range(0, len(window), size))
    rng.shuffle(found)
    return found


def loss_of(model: PeftModel, batch: list[Encoded]) -> torch.Tensor:
    """Return the mean cross entropy over the batch's reply tokens.

    Right padding needs no mask: under causal attention no reply token sees it.
    """
    width = max(len(row.ids) for row in batch)
    device = next(model.parameters()).device
    ids = torch.tensor([row.ids + [2] * (width - len(row.ids)) for row in batch], device=device)
    picked = torch.zeros_like(ids, dtype=torch.bool)
    for index, row in enumerate(batch):
        picked[index, row.start - 1 : len(row.ids) - 1] = True
    causal = model.get_base_model()
    hidden = causal.model(input_ids=ids, use_cache=False).last_hidden_state[picked]
    wanted = ids.roll(-1, dims=1)[picked]
    return cross_entropy(causal.lm_head(hidden).float(), wanted)


def fit(model: PeftModel, rows: list[Encoded], recipe: Recipe) -> dict[str, Any]:
    """Train until the epochs or the minutes are used up; the rate falls linearly with whichever is nearer."""
    rng = random.Random(recipe.seed)
    plan = [batch for _ in range(recipe.epochs) for batch in batches(rows, recipe.rows_per_step, rng)]
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0, betas=(0.9, 0.98))
    began, losses = time.monotonic(), []
    for step, batch in enumerate(plan):
        used = max(step / len(plan), (time.monotonic() - began) / (recipe.minutes * 60))
        if used >= 1:
            break
        rate = recipe.learning_rate * min((step + 1) / recipe.warmup_steps, 1.0 - used)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        log.info("step %d/%d loss %.3f lr %.1e %.0fs", step + 1, len(plan), losses[-1], rate, time.monotonic() - began)
    return {
        "steps": len(losses),
        "planned_steps": len(plan),
        "seconds": round(time.monotonic() - began),
        "loss_first_5": round(sum(losses[:5]) / len(losses[:5]), 3),
        "loss_last_5": round(sum(losses[-5:]) / len(losses[-5:]), 3),
    }


def save(model: PeftModel, out: Path) -> None:
    """Write the adapter as float16 safetensors with the public base id in its configuration."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = BASE_ID
    config.inference_mode = True
    config.save_pretrained(str(out))
    state = {key: value.detach().half().cpu().contiguous() for key, value in get_peft_model_state_dict(model).items()}
    save_file(state, str(out / "adapter_model.safetensors"), metadata={"format": "pt"})


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest(name: str, out: Path, recipe: Recipe, run: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """Describe the run: files, data, seeds and versions."""
    sources: dict[str, int] = {}
    for row in rows:
        sources[row.source] = sources.get(row.source, 0) + 1
    files = {f: sha256(out / f) for f in ("adapter_model.safetensors", "adapter_config.json", "heldout.jsonl")}
    return {
        "name": name,
        "base_model": BASE_ID,
        "recipe": asdict(recipe),
        "run": run,
        "train_rows_by_source": sources,
        "prompt_sha256": sha256(PROMPT_FILES[name]),
        "sha256": files,
        "versions": {package: version(package) for package in ("torch", "transformers", "peft")},
    }


def train(name: str, base: Path, out: Path, recipe: Recipe, threads: int) -> None:
    """Train adapter `name` and write its folder."""
    keep_heap()
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    layers = model.config.num_hidden_layers
    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        layers_to_transform=list(range(recipe.first_layer, layers)),
        layers_pattern="layers",
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, lora)
    rows, held_out = build(name)
    encoded = encode(rows, name, tokenizer, recipe.max_tokens)
    tokens = sum(len(row.ids) for row in encoded)
    log.info("%s: %d train rows (%d tokens), %d held out", name, len(encoded), tokens, len(held_out))
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / "heldout.jsonl", held_out)
    run = {**fit(wrapped, encoded, recipe), "rows": len(encoded), "tokens_per_epoch": tokens}
    save(wrapped, out)
    text = json.dumps(manifest(name, out, recipe, run, rows), indent=2)
    (out / "adapter_model.safetensors").chmod(0o644)
    (out / "manifest.json").write_text(f"{text}\n", encoding="utf-8")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", required=True, choices=sorted(PROMPT_FILES))
    parser.add_argument("--base", type=Path, required=True, help="folder written by models/base/export.py")
    parser.add_argument("--out", type=Path, help="default: models/adapters/<adapter>")
    parser.add_argument("--recipe", type=Path, help="manifest.json whose recipe is repeated")
    parser.add_argument("--minutes", type=float, help="time budget; default: the recipe's")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = Recipe(**json.loads(arguments.recipe.read_text())["recipe"]) if arguments.recipe else Recipe()
    recipe = replace(recipe, minutes=arguments.minutes or recipe.minutes)
    train(arguments.adapter, arguments.base, arguments.out or HERE / arguments.adapter, recipe, arguments.threads)


if __name__ == "__main__":
    main()
