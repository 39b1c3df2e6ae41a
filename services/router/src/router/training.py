"""The work behind `strata router train`: a classifier for a company's own labels."""

from pathlib import Path

from encoders.taxonomy import train_taxonomy


def train(data: Path, out: Path) -> dict[str, float | int]:
    """Fit `out` on rows of `{text, label}` and return its cross-validated measures; raise ValueError for malformed data."""
    return train_taxonomy(data, out)
