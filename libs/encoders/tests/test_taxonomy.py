"""Training on labels of the user's own, from file to prediction."""

import json
from pathlib import Path

import pytest

from encoders import Encoder, TextClassifier
from encoders.evaluation import RowError
from encoders.taxonomy import train_taxonomy

SENTENCES = {
    "weather": [
        "will it rain today",
        "is it sunny outside",
        "how cold is it",
        "weather in paris",
        "do i need an umbrella",
        "any snow tonight",
    ],
    "music": ["play some jazz", "next song please", "who sings this", "turn up the music", "play my playlist", "what song is on"],
    "oos": ["who won the war", "how tall is everest", "capital of peru", "what is dna", "who wrote hamlet", "explain gravity"],
}


def test_a_taxonomy_is_trained_saved_and_used(encoder: Encoder, tmp_path: Path) -> None:
    """One file holds all that predictions need, the out-of-scope label included."""
    rows = [{"text": text, "label": label} for label, texts in SENTENCES.items() for text in texts]
    data, out = tmp_path / "train.jsonl", tmp_path / "taxonomy.npz"
    data.write_text("\n".join(json.dumps(row) for row in rows))

    report = train_taxonomy(data, out, encoder)

    assert (report["rows"], report["labels"]) == (18, 2)
    assert 0 < report["oos_threshold"] < 1
    classifier = TextClassifier.load(out, encoder)
    found = classifier.predict(["is it going to rain in london", "please play a song", "who painted the mona lisa"])
    assert [prediction.label for prediction in found] == ["weather", "music", "oos"]


def test_one_label_is_no_taxonomy(tmp_path: Path, encoder: Encoder) -> None:
    """The error names the file and what it lacks."""
    data = tmp_path / "train.jsonl"
    data.write_text('{"text": "a", "label": "x"}\n' * 4)

    with pytest.raises(RowError, match="needs two labels besides 'oos'"):
        train_taxonomy(data, tmp_path / "out.npz", encoder)
