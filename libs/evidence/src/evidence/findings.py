"""What a check of evidence found: problems by name, and remarks that are none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from evidence.cose import InvalidCoseError
from evidence.sealing import SealedError
from tlog.notes import InvalidNoteError
from tlog.tree import InvalidProofError


@dataclass
class Findings:
    """Grows while something is checked; it holds as long as there is no problem."""

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether everything that was checked is right."""
        return not self.problems

    def problem(self, what: str, why: object) -> None:
        """Note what does not hold."""
        self.problems.append(f"{what}: {why}")

    def require(self, *, holds: bool, what: str, why: str) -> bool:
        """Note a problem unless `holds`; return whether it does."""
        if not holds:
            self.problem(what, why)
        return holds

    @contextmanager
    def naming(self, what: str) -> Iterator[None]:
        """Turn whatever fails in the block into a problem of `what`."""
        try:
            yield
        except (InvalidNoteError, InvalidProofError, InvalidCoseError, SealedError) as error:
            self.problem(what, error)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            self.problem(what, f"not as it must be written: {error!r}")
