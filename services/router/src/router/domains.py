"""What router needs to know of each domain: its classifier of intents and its policy."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from chassis.policy import Policy, load_policies
from encoders import ClassifierFileError, Encoder, TextClassifier
from encoders.classifier import WEIGHTS_FILE


class DomainFileError(OSError):
    """A domain file cannot be used; the text names it."""


@dataclass(frozen=True)
class Head:
    """A classifier with its name and the digest of its weights."""

    name: str
    classifier: TextClassifier
    version: str


@dataclass(frozen=True)
class Domain:
    """One domain: its policy, and its classifier of intents if it has one."""

    policy: Policy
    intents: Head | None = None


def load_head(repository: Path, name: str, encoder: Encoder) -> Head:
    """Read one classifier under `models/router`; raise ClassifierFileError."""
    folder = repository / "models" / "router" / name
    classifier = TextClassifier.load(folder, encoder)
    try:
        digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    except OSError as error:
        raise ClassifierFileError(f"{str(folder)!r} cannot be read: {error}") from error
    return Head(name, classifier, f"{name}@{digest[:12]}")


def load_domains(repository: Path, encoder: Encoder) -> Mapping[str, Domain]:
    """Read every domain under `domains/`; raise DomainFileError, PolicyFileError or ClassifierFileError."""
    found = {}
    for name, policy in load_policies(repository / "domains").items():
        model, declared = _declared(repository / "domains" / name / "domain.yaml")
        if not model:
            found[name] = Domain(policy)
            continue
        head = load_head(repository, model, encoder)
        if unknown := set(head.classifier.config.labels) - declared:
            raise DomainFileError(f"{name}: model {model!r} answers {sorted(unknown)}, which domain.yaml does not declare as intents")
        found[name] = Domain(policy, head)
    return found


def _declared(path: Path) -> tuple[str, set[str]]:
    try:
        content = yaml.safe_load(path.read_text())
        return content.get("intent_model") or "", set(content.get("intents") or ())
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise DomainFileError(f"{path}: {' '.join(str(error).split())}") from error
