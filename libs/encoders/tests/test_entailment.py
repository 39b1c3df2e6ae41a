"""The cross-encoder's graph and its input, on the encoder's own layers with a head that is not trained."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from encoders.alignment import Aligner
from encoders.encoder import default_directory
from encoders.entailment import WEIGHTS_FILE, EntailmentFileError, EntailmentModel
from encoders.pair_tokens import KINDS, MAX_TOKENS, PairTokenizer

PAIRS = [("The clinic opens at 8 am.", "The clinic opens at 9 am on weekdays."), ("It rains.", "Rain falls " * 90)]


@pytest.fixture(scope="module")
def tokens() -> PairTokenizer:
    """What turns pairs into rows, with the encoder's own words."""
    return Aligner.load().tokens


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two layers of the encoder and a head drawn by chance."""
    chance = np.random.default_rng(3)
    weights = load((default_directory() / "model.safetensors").read_bytes())
    kept = {name: value for name, value in weights.items() if name.startswith(("embeddings.", "encoder.layer.0.", "encoder.layer.1."))}
    kept["embeddings.token_type_embeddings.weight"] = chance.normal(size=(KINDS, 384), scale=0.02)
    kept["embeddings.position_embeddings.weight"] = kept["embeddings.position_embeddings.weight"][:MAX_TOKENS]
    kept["head.weight"], kept["head.bias"] = chance.normal(size=(1, 3 * 384)), np.zeros(1)
    folder = tmp_path_factory.mktemp("entailment")
    small = {name: value.astype(np.float16) for name, value in kept.items() if "word_embeddings" not in name}
    np.savez(folder / WEIGHTS_FILE, **small)
    return folder


def test_a_pair_has_the_same_logit_whatever_is_read_beside_it(directory: Path, tokens: PairTokenizer) -> None:
    """No pair reads another, nor does its neighbour change what int8 makes of it."""
    model = EntailmentModel.load(directory, tokens)

    together = model.logits(PAIRS)

    assert together == pytest.approx([float(model.logits([pair])[0]) for pair in PAIRS], abs=1e-3)
    assert abs(together[0] - together[1]) > 1e-3
    assert model.logits([]).shape == (0,)


def test_weights_that_cannot_be_read_are_named(tmp_path: Path, tokens: PairTokenizer) -> None:
    """The error carries the path."""
    with pytest.raises(EntailmentFileError, match=r"entailment.npz"):
        EntailmentModel.load(tmp_path, tokens)


def test_what_both_sides_share_is_marked(tokens: PairTokenizer) -> None:
    """The kinds tell claim from evidence, and alone from alike, same and same beside the same; a long evidence is cut."""
    ids, kinds, length = tokens.row("the clinic opens in rome", "rome has a film where the clinic closes")
    alike, _ = tokens.row("a movie", "the film")[1:]
    long_ids, _, long_length = tokens.row(*PAIRS[1])

    assert (length, len(ids)) == (5, len(kinds))
    assert kinds[1:3] == [3, 3]
    assert kinds[5] == 2
    assert kinds[7] == 4 + 2
    assert 1 in alike
    assert len(long_ids) == MAX_TOKENS
    assert long_length < 10
