"""How each collection is ranked, as the domains declare it."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from retriever.settings import CollectionRanking


class RankingDeclarationError(OSError):
    """Raised at start when a domain declares a ranking that cannot be."""


def load(domains_dir: Path) -> dict[str, CollectionRanking]:
    """Return the rankings of those collections that declare one, by name; raise RankingDeclarationError."""
    found: dict[str, CollectionRanking] = {}
    for file in sorted(domains_dir.glob("*/domain.yaml")):
        for entry in (yaml.safe_load(file.read_text()) or {}).get("collections") or []:
            if entry.get("ranking") is None:
                continue
            try:
                found[str(entry["name"])] = CollectionRanking.model_validate(entry["ranking"])
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                raise RankingDeclarationError(f"{file}: collection {entry['name']!r}: ranking.{where}: {first['msg']}") from error
    return found
