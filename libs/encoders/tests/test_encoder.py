"""The encoder against what its wheel promises."""

from pathlib import Path

import numpy as np
import pytest

from encoders import Encoder, EncoderUnavailableError


def test_related_sentences_are_nearer_than_unrelated_ones(encoder: Encoder) -> None:
    """Cosine similarity follows meaning."""
    pain, chest, shop = encoder.encode(["my chest hurts", "pain in the thorax", "where is the shop"])

    assert pain @ chest > pain @ shop + 0.3


def test_vectors_have_length_one_and_keep_the_order_of_the_texts(encoder: Encoder) -> None:
    """Batching by length changes neither order nor value."""
    texts = ["a much longer sentence about the opening hours of the clinic " * n for n in (5, 1, 3)]
    together = encoder.encode([*texts, "", "short"])

    assert together.shape == (5, 384)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    fresh = Encoder.load()
    for row, text in zip(together, texts, strict=False):
        assert np.allclose(row, fresh.encode([text])[0], atol=1e-5)


def test_vectors_equal_the_reference_implementation(encoder: Encoder) -> None:
    """The fused graph computes what the published PyTorch model computes."""
    expected = [0.042981, -0.015041, 0.073188, 0.070587, 0.034794, -0.049699]
    found = encoder.encode(["my chest hurts and my left arm is numb"])[0][:6]

    assert np.allclose(found, expected, atol=1e-5)


def test_no_texts_give_no_rows(encoder: Encoder) -> None:
    """An empty batch is not an error."""
    assert encoder.encode([]).shape == (0, 384)


def test_text_beyond_the_window_is_cut(encoder: Encoder) -> None:
    """At most 256 tokens are read, whatever the length."""
    assert encoder.count_tokens("word " * 5000) == 256
    assert encoder.encode(["word " * 5000]).shape == (1, 384)


def test_identity_names_the_weights(encoder: Encoder) -> None:
    """Two loads agree; the key fits into an index name."""
    key = encoder.identity.key()

    assert key == Encoder.load().identity.key()
    assert key.replace("-", "").isalnum()
    assert encoder.identity.model == "all-MiniLM-L6-v2"


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    """The error says which file is missing where."""
    with pytest.raises(EncoderUnavailableError, match=r"'model.safetensors' is missing in"):
        Encoder.load(tmp_path)
