"""Fine-tunes the first layers of MiniLM as a cross-encoder that says whether evidence entails a claim.

Usage: python models/grounding/entail.py --data FOLDER --out FOLDER [--prepare]; a second start goes on where the first ended
"""

import argparse
import pickle
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made import made, questions
from pairs import Pair, beliefs, cg2c, near_copies, papers, public, who
from torch import nn
from transformers import BertModel

from encoders.alignment import Aligner
from encoders.claims import Reading, without_citations
from encoders.encoder import default_directory
from encoders.evidence import read_lines, window
from encoders.metrics import auroc, balanced_accuracy
from encoders.pair_tokens import KINDS, MAX_TOKENS, PairBatch, PairTokenizer, collate

LAYERS = 4
_BATCH = 8
# Short pairs teach alignment for less time.
_LONGEST_GENERAL = 84
_RATE = 1.5e-4
_WARM = 60
_DROPPED = 0.05
Row = tuple[list[int], list[int], int]


class CrossEncoder(nn.Module):
    """BERT over claim and evidence; one logit from the first token, the mean, and the strongest of the claim's tokens."""

    def __init__(self) -> None:
        """Start from the sentence encoder's own weights; word embeddings stay as they are."""
        super().__init__()
        self.bert = BertModel.from_pretrained(default_directory(), num_hidden_layers=LAYERS, add_pooling_layer=False)
        old = self.bert.embeddings.token_type_embeddings.weight.detach()
        table = nn.Embedding(KINDS, old.shape[1])
        half = KINDS // 2
        table.weight.data = torch.cat([old[:1].repeat(half, 1), old[1:2].repeat(half, 1)]) + torch.randn(KINDS, old.shape[1]) * 0.03
        self.bert.embeddings.token_type_embeddings = table
        self.bert.embeddings.word_embeddings.weight.requires_grad_(False)
        for name, module in self.bert.named_modules():
            if isinstance(module, nn.Dropout):
                module.p = _DROPPED if name.endswith("output.dropout") else 0.0
        self.head = nn.Linear(3 * old.shape[1], 1)

    def forward(self, batch: PairBatch) -> torch.Tensor:
        """Return logits (pairs)."""
        ids, kinds, mask, claim = (torch.from_numpy(part).long() for part in (batch.ids, batch.kinds, batch.mask, batch.claim_mask))
        hidden = self.bert(input_ids=ids, token_type_ids=kinds, attention_mask=mask).last_hidden_state
        wide = mask[:, :, None].float()
        mean = (hidden * wide).sum(1) / wide.sum(1)
        strongest = (hidden + (claim[:, :, None].float() - 1) * 1e4).amax(1)
        logits: torch.Tensor = self.head(torch.cat([hidden[:, 0], mean, strongest], dim=1))[:, 0]
        return logits


def read_rows(pairs: Sequence[Pair], tokens: PairTokenizer) -> list[Row]:
    """Return the token rows of pairs, through the same window as in service."""
    rows = []
    for pair in pairs:
        claim = Reading(without_citations(pair.claim))
        rows.append(tokens.row(claim.text, window(claim, read_lines(pair.passages))))
    return rows


def batches(rows: Sequence[Row], order: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of similar length in random order; padding costs time."""
    order = list(order)
    result = []
    for start in range(0, len(order), _BATCH * 16):
        chunk = sorted(order[start : start + _BATCH * 16], key=lambda place: len(rows[place][0]))
        result += [chunk[at : at + _BATCH] for at in range(0, len(chunk), _BATCH)]
    random.shuffle(result)
    yield from result


@dataclass
class Plan:
    """How long one stage trains: `epochs`, or until the file `stop` appears; the rate then falls within `fall` steps."""

    epochs: int
    rate: float
    stop: Path
    fall: int


def fit(model: CrossEncoder, gold: np.ndarray[Any, Any], rows: Sequence[Row], plan: Plan, file: Path) -> None:
    """Train with a rate that rises, stays and falls; `file` holds the last state, from which a second start goes on."""
    groups = [{"params": list(model.head.parameters()), "lr": plan.rate * 5}]
    groups.append({"params": [p for p in model.bert.parameters() if p.requires_grad], "lr": plan.rate})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    random.seed(file.name)
    queue = [chunk for _ in range(plan.epochs) for chunk in batches(rows, random.sample(range(len(rows)), len(rows)))]
    end, step, losses = len(queue), 0, []
    if file.exists():
        saved = torch.load(file)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step, end = saved["step"], min(end, saved["end"])
    loss_of, started = nn.BCEWithLogitsLoss(), time.process_time()
    model.train()
    while step < end:
        if plan.stop.exists():
            end = min(end, step + plan.fall)
        for group, peak in zip(optimizer.param_groups, (plan.rate * 5, plan.rate), strict=True):
            group["lr"] = peak * min(1.0, (step + 1) / _WARM, (end - step) / plan.fall)
        batch = collate([rows[place] for place in queue[step]])
        loss = loss_of(model(batch), torch.from_numpy(gold[queue[step]] * 0.94 + 0.03))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        losses.append(float(loss.detach()))
        if step % 50 == 0:
            print(f"{step}/{end} loss {np.mean(losses[-100:]):.4f} {time.process_time() - started:.0f}s", flush=True)
        if step % 200 == 0:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "end": end}, file)
    file.unlink(missing_ok=True)


def logits_of(model: CrossEncoder, rows: Sequence[Row]) -> np.ndarray[Any, Any]:
    """Return the logit of every row."""
    model.eval()
    result = np.zeros(len(rows), dtype=np.float32)
    order = sorted(range(len(rows)), key=lambda place: len(rows[place][0]))
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            chunk = order[start : start + _BATCH]
            result[chunk] = model(collate([rows[place] for place in chunk])).numpy()
    return result


def report(name: str, pairs: Sequence[Pair], logits: np.ndarray[Any, Any]) -> None:
    """Print AUROC and the best balanced accuracy per source."""
    for source in sorted({pair.source for pair in pairs}):
        chosen = np.array([pair.source == source for pair in pairs])
        gold = np.array([pair.supported for pair in pairs])[chosen]
        scores = logits[chosen].astype(np.float64)
        best = max(balanced_accuracy(scores >= at, gold) or 0 for at in np.quantile(scores, np.linspace(0.05, 0.95, 50)))
        at_zero = balanced_accuracy(scores >= 0, gold)
        print(name, source, len(gold), f"auroc {auroc(scores, gold) or 0:.3f} best {best:.3f} at0 {at_zero or 0:.3f}", flush=True)


def export(model: CrossEncoder, file: Path) -> None:
    """Write every trained weight at half precision; word embeddings come with the encoder."""
    state = {name.removeprefix("bert."): value.numpy() for name, value in model.state_dict().items()}
    state["embeddings.position_embeddings.weight"] = state["embeddings.position_embeddings.weight"][:MAX_TOKENS]
    kept = {name: value.astype(np.float16) for name, value in state.items() if "word_embeddings" not in name and "_ids" not in name}
    np.savez(file, **kept)


def prepare(data: Path, out: Path) -> tuple[list[Pair], list[Row], list[Pair], list[Row]]:
    """Return general and judged pairs with their token rows; kept in `out`, for parsing takes a minute."""
    file = out / "rows.pickle"
    if not file.exists():
        tokens = Aligner.load().tokens
        judged, general = public(data), _general(data)
        file.write_bytes(pickle.dumps((general, read_rows(general, tokens), judged, read_rows(judged, tokens))))
    content: tuple[list[Pair], list[Row], list[Pair], list[Row]] = pickle.loads(file.read_bytes())
    return content


def _general(data: Path) -> list[Pair]:
    answers = list(who(data, 120))
    right = [pair for pair in answers if pair.supported]
    wrong = [pair for pair in answers if not pair.supported]
    several = list(papers(data))
    own = [*cg2c(data), *made(data), *beliefs(data), *questions(data)]
    return [*own, *right, *wrong[: 2 * len(right)], *several[: len(several) // 2], *near_copies(data, test=False)]


def first_stage(model: CrossEncoder, pairs: Sequence[Pair], rows: Sequence[Row], out: Path) -> None:
    """Train on generated and made pairs alone."""
    short = [place for place, row in enumerate(rows) if len(row[0]) <= _LONGEST_GENERAL]
    gold = np.array([pairs[place].supported for place in short], dtype=np.float32)
    rows = [rows[place] for place in short]
    fit(model, gold, rows, Plan(1, _RATE, out / "stop_general", fall=1), out / "general.part")
    torch.save(model.state_dict(), out / "general.pt")


@dataclass(frozen=True)
class Stage:
    """Which public sets are read how many times, and how many general pairs beside them."""

    name: str
    times: Mapping[str, int]
    replayed: int
    rate: float
    fall: int


_ALL = {"fever_symmetric": 2, "begin_wow": 2, "factcheck_gpt": 1, "scifact": 1, "wice": 1}
# Short pairs cost little and teach most; SciFact and WiCE are unseen before the stage "public".
_STAGES = (
    Stage("short", {"fever_symmetric": 3, "begin_wow": 3, "factcheck_gpt": 1}, 800, _RATE, 120),
    Stage("public", _ALL, 200, _RATE * 0.8, 250),
)
LAST = _STAGES[-1].name
SPARED_FILE = "spared.npy"
# The last stage before which a set is unseen.
UNSEEN = dict.fromkeys(_STAGES[0].times, "general") | dict.fromkeys(("scifact", "wice"), "short")


def later_stage(
    model: CrossEncoder,
    stage: Stage,
    general: tuple[Sequence[Pair], Sequence[Row]],
    judged: tuple[Sequence[Pair], Sequence[Row]],
    out: Path,
) -> None:
    """Go on with three quarters of public sets and some of the first stage."""
    random.seed(stage.name)
    short = [place for place, row in enumerate(general[1]) if len(row[0]) <= _LONGEST_GENERAL]
    # Opinions about the world are many, and less like what is judged than edited sentences.
    short = [place for place in short if place % 4 == 0 or general[0][place].source != "beliefs"]
    replay = random.sample(short, min(stage.replayed, len(short)))
    # Irrelevant evidence is easy and would be most of one set.
    seen = [
        place
        for place, pair in enumerate(judged[0])
        if not pair.held_out and (pair.supported or pair.source != "factcheck_gpt" or place % 2)
        for _ in range(stage.times.get(pair.source, 0))
    ]
    pairs = [judged[0][place] for place in seen] + [general[0][place] for place in replay]
    rows = [judged[1][place] for place in seen] + [general[1][place] for place in replay]
    gold = np.array([pair.supported for pair in pairs], dtype=np.float32)
    fit(model, gold, rows, Plan(1, stage.rate, out / f"stop_{stage.name}", stage.fall), out / f"{stage.name}.part")
    torch.save(model.state_dict(), out / f"{stage.name}.pt")


def spare(general: tuple[Sequence[Pair], Sequence[Row]], judged: tuple[Sequence[Pair], Sequence[Row]], out: Path) -> None:
    """Train the later stages again without the spared pairs, and write this model's logits of them."""
    kept = [place for place, pair in enumerate(judged[0]) if not pair.spared]
    rest = [judged[0][place] for place in kept], [judged[1][place] for place in kept]
    folder = out / "spared"
    folder.mkdir(exist_ok=True)
    model = CrossEncoder()
    model.load_state_dict(torch.load(out / "general.pt"))
    for stage in _STAGES:
        later_stage(model, stage, general, rest, folder)
    chosen = [place for place, pair in enumerate(judged[0]) if pair.spared]
    logits = logits_of(model, [judged[1][place] for place in chosen])
    np.save(out / SPARED_FILE, logits)
    report("spared", [judged[0][place] for place in chosen], logits)


def main() -> None:
    """Train on made and generated pairs, then on three quarters of the public sets; measure the rest after each stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prepare", action="store_true", help="only read, make and tokenise the pairs")
    options = parser.parse_args()
    torch.manual_seed(7)
    torch.set_num_threads(1)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    general, general_rows, judged, judged_rows = prepare(options.data, out)
    for name, rows in (("general", general_rows), ("judged", judged_rows)):
        print(name, len(rows), "pairs, mean tokens", round(float(np.mean([len(row[0]) for row in rows])), 1), flush=True)
    if options.prepare:
        return
    model = CrossEncoder()
    held = [place for place, pair in enumerate(judged) if pair.held_out]
    for name in ("general", *(stage.name for stage in _STAGES)):
        if (out / f"{name}.pt").exists():
            model.load_state_dict(torch.load(out / f"{name}.pt"))
        elif name == "general":
            first_stage(model, general, general_rows, out)
        else:
            stage = next(stage for stage in _STAGES if stage.name == name)
            later_stage(model, stage, (general, general_rows), (judged, judged_rows), out)
        if not (out / f"{name}.npy").exists():
            logits = logits_of(model, [judged_rows[place] for place in held])
            np.save(out / f"{name}.npy", logits)
            report(name, [judged[place] for place in held], logits)
    export(model, out / "entailment.npz")
    if not (out / SPARED_FILE).exists():
        spare((general, general_rows), (judged, judged_rows), out)


if __name__ == "__main__":
    main()
