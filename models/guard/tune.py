"""Tunes the guard encoder: the lowest layer of MiniLM stays, the next three and one head for all tasks learn together.

Usage: OMP_NUM_THREADS=1 python models/guard/tune.py --data FOLDER_OF_PUBLIC_SETS --out FOLDER [--epochs 1.5 1] [--rate 2.5e-4]
"""

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path

import rows as drawn
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from encoders.encoder import default_directory
from encoders.guard import DEPTH, FROZEN, SHORT, TASKS

HEADS, WIDTH = 12, 384
_LONGEST = 128
_BATCH_TOKENS = 1280
_SMOOTHING = 0.03
# The single categories of safety help the pooled one and each other, and count less; `tool` is fitted later (`refit.py`).
_WEIGHTS = torch.tensor([1.3, 1.3, *[0.5] * 6, 1.0, 0.0])


class Layer(nn.Module):
    """One layer of BERT with its weights under their usual names."""

    def __init__(self, weights: dict[str, Tensor], index: int) -> None:
        super().__init__()
        prefix = f"encoder.layer.{index}."
        own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        self.values = nn.ParameterDict({name.replace(".", "/"): nn.Parameter(value.float().clone()) for name, value in own.items()})

    def _linear(self, name: str, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.values[f"{name}/weight"], self.values[f"{name}/bias"])

    def _normed(self, name: str, hidden: Tensor) -> Tensor:
        return functional.layer_norm(
            hidden, (WIDTH,), self.values[f"{name}/LayerNorm/weight"], self.values[f"{name}/LayerNorm/bias"], 1e-12
        )

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Return the next states of (batch, tokens, 384); `bias` (batch, 1, 1, tokens) is large and negative where nothing is."""
        batch, tokens, _ = hidden.shape
        parts = [
            self._linear(f"attention/self/{name}", hidden).view(batch, tokens, HEADS, -1).transpose(1, 2)
            for name in ("query", "key", "value")
        ]
        mixed = functional.scaled_dot_product_attention(*parts, attn_mask=bias).transpose(1, 2).reshape(batch, tokens, WIDTH)
        attended = self._normed("attention/output", self._linear("attention/output/dense", mixed) + hidden)
        wide = functional.gelu(self._linear("intermediate/dense", attended))
        return self._normed("output", self._linear("output/dense", functional.dropout(wide, 0.05, self.training)) + attended)


class Guard(nn.Module):
    """The learning layers and the head over the mean and the maximum of all tokens."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(weights, index) for index in range(FROZEN, DEPTH)])
        self.head = nn.Linear(2 * WIDTH, len(TASKS))
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return log odds (batch, tasks)."""
        bias = (1.0 - mask)[:, None, None, :] * -1e9
        for layer in self.layers:
            hidden = layer(hidden, bias)
        mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        most = (hidden + (mask[:, :, None] - 1.0) * 1e4).amax(1)
        odds: Tensor = self.head(functional.dropout(torch.cat([mean, most], dim=1), 0.1, self.training))
        return odds


def paired(hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means of neighbouring tokens, half as many, and their mask."""
    if hidden.shape[1] % 2:
        hidden, mask = functional.pad(hidden, (0, 0, 0, 1)), functional.pad(mask, (0, 1))
    batch, tokens = mask.shape
    pairs = mask.view(batch, tokens // 2, 2)
    total = (hidden * mask[:, :, None]).view(batch, tokens // 2, 2, WIDTH).sum(2)
    return total / pairs.sum(2, keepdim=True).clamp(min=1.0), pairs.amax(2)


class Lowest:
    """The frozen part: embeddings and the first layer, run once for every text."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self._weights, self._layers = weights, [Layer(weights, index).eval() for index in range(FROZEN)]

    @torch.no_grad()
    def states(self, ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return float16 states (tokens, 384) of every text."""
        found: list[Tensor] = [torch.empty(0)] * len(ids)
        for batch in batches(ids, list(range(len(ids))), 4096, random.Random(0)):
            longest = max(len(ids[place]) for place in batch)
            tokens, mask = torch.zeros(len(batch), longest, dtype=torch.long), torch.zeros(len(batch), longest)
            for row, place in enumerate(batch):
                tokens[row, : len(ids[place])], mask[row, : len(ids[place])] = torch.tensor(ids[place]), 1.0
            w = self._weights
            hidden = w["embeddings.word_embeddings.weight"][tokens] + w["embeddings.position_embeddings.weight"][:longest]
            hidden = hidden + w["embeddings.token_type_embeddings.weight"][0]
            norm = [w[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias")]
            hidden = functional.layer_norm(hidden, (WIDTH,), norm[0], norm[1], 1e-12)
            for layer in self._layers:
                hidden = layer(hidden, (1.0 - mask)[:, None, None, :] * -1e9)
            for row, place in enumerate(batch):
                found[place] = hidden[row, : len(ids[place])].half()
        return found


def batches(ids: Sequence[Sequence[int]], order: list[int], budget: int, chance: random.Random) -> list[list[int]]:
    """Return batches of texts of like length, in random order."""
    found: list[list[int]] = []
    for start in range(0, len(order), 1024):
        batch: list[int] = []
        for place in sorted(order[start : start + 1024], key=lambda place: len(ids[place])):
            if batch and (len(batch) + 1) * len(ids[place]) > budget:
                found.append(batch)
                batch = []
            batch.append(place)
        found.append(batch)
    chance.shuffle(found)
    return found


def stacked(states: Sequence[Tensor], batch: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the states of a batch side by side, and their mask."""
    longest = max(len(states[place]) for place in batch)
    hidden, mask = torch.zeros(len(batch), longest, WIDTH), torch.zeros(len(batch), longest)
    for row, place in enumerate(batch):
        hidden[row, : len(states[place])], mask[row, : len(states[place])] = states[place].float(), 1.0
    return hidden, mask


class Teacher:
    """The texts with the states of their lowest layer, and the steps of learning from them."""

    def __init__(self, model: Guard, rows: Sequence[drawn.Row], ids: Sequence[Sequence[int]], states: Sequence[Tensor]) -> None:
        self._model, self._rows, self._ids, self._states = model, rows, ids, states
        self._labels = torch.tensor([row.labels for row in rows], dtype=torch.float32)
        self._chance = random.Random(1)

    def _steps(self, places: list[int], epochs: float) -> list[list[int]]:
        found: list[list[int]] = []
        while epochs > 0:
            order = list(places)
            self._chance.shuffle(order)
            made = batches(self._ids, order, _BATCH_TOKENS, self._chance)
            found += made[: int(len(made) * min(1.0, epochs))]
            epochs -= 1.0
        return found

    def loss(self, batch: Sequence[int]) -> Tensor:
        """Return the loss of a batch; what is not known of a text does not count."""
        hidden, mask = stacked(self._states, batch)
        if hidden.shape[1] > SHORT or self._chance.random() < 0.2:
            hidden, mask = paired(hidden, mask)
        goal = self._labels[batch]
        known = (goal >= 0).float() * _WEIGHTS
        soft = goal.clamp(min=0) * (1 - 2 * _SMOOTHING) + _SMOOTHING
        missed = functional.binary_cross_entropy_with_logits(self._model(hidden, mask), soft, reduction="none")
        return (missed * known).sum() / known.sum()

    def learn(self, places: list[int], epochs: float, rate: float, path: Path, seconds: float) -> float:
        """Train with a rate that rises and falls, save every 100 steps, end early after `seconds`; return seconds per step."""
        steps, started, running = self._steps(places, epochs), time.perf_counter(), 0.0
        slow = [p for name, p in self._model.named_parameters() if not name.startswith("head")]
        groups = [{"params": slow, "base": rate}, {"params": self._model.head.parameters(), "base": 5 * rate}]
        optimiser = torch.optim.AdamW(groups, lr=rate, weight_decay=0.01)
        self._model.train()
        for step, batch in enumerate(steps):
            # The rate falls with whichever is used up first, steps or time.
            spent = max(step / len(steps), (time.perf_counter() - started) / seconds)
            for group in optimiser.param_groups:
                group["lr"] = group["base"] * min(1.0, (step + 1) / 60) * max(0.02, 1.0 - spent)
            if spent > 1.0:
                break
            loss = self.loss(batch)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            optimiser.step()
            running = loss.item() if not step else 0.98 * running + 0.02 * loss.item()
            if step % 25 == 0:
                print(f"{step}/{len(steps)} loss {running:.4f} {time.perf_counter() - started:.0f} s", flush=True)
            if step % 100 == 99:
                save(self._model, path)
        save(self._model, path)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s", flush=True)
        return (time.perf_counter() - started) / max(1, len(steps))


def save(model: Guard, path: Path) -> None:
    """Write the layers and the head as float32."""
    found = {
        f"encoder.layer.{FROZEN + index}.{name.replace('/', '.')}": value.detach()
        for index, layer in enumerate(model.layers)
        for name, value in layer.values.items()  # type: ignore[union-attr]
    }
    found |= {"head.weight": model.head.weight.detach(), "head.bias": model.head.bias.detach()}
    save_file({name: value.contiguous() for name, value in found.items()}, str(path))


def main() -> None:
    """Tune on everything but what is left out, then go on with everything; write the weights of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of measured.safetensors and shipped.safetensors")
    parser.add_argument("--epochs", type=float, nargs=2, default=(1.5, 1.0))
    parser.add_argument("--rate", type=float, default=2.5e-4)
    parser.add_argument("--minutes", type=float, nargs=2, default=(120.0, 120.0), help="at most, for each of the two")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = default_directory()
    weights = load_file(str(folder / "model.safetensors"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_LONGEST)
    rows = drawn.draw(options.data)
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast([row.text for row in rows])]
    print(f"{len(rows)} rows, {sum(map(len, ids))} tokens", flush=True)
    model = Guard(weights)
    teacher = Teacher(model, rows, ids, Lowest(weights).states(ids))
    seen = [place for place, row in enumerate(rows) if not row.left_out]
    teacher.learn(seen, options.epochs[0], options.rate, options.out / "measured.safetensors", 60 * options.minutes[0])
    everything = list(range(len(rows)))
    teacher.learn(everything, options.epochs[1], 0.5 * options.rate, options.out / "shipped.safetensors", 60 * options.minutes[1])


if __name__ == "__main__":
    main()
