"""Rows of cells as a Markdown table."""

from collections.abc import Iterable, Sequence


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return the rows as one table whose first row is its head; empty where no cell has text."""
    found = [[_cell(cell) for cell in row] for row in rows]
    found = [row for row in found if any(row)]
    if not found:
        return ""
    width = max(map(len, found))
    lines = [_line([*row, *[""] * (width - len(row))]) for row in found]
    return "\n".join([lines[0], _line(["---"] * width), *lines[1:]])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
