"""Which deployments of models are cleared for personal data: what the configuration says, or those on this very machine."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

_HERE = frozenset({"127.0.0.1", "localhost", "::1"})


class DeploymentsFileError(OSError):
    """The file of deployments cannot be read; the text names the file and the reason."""


@dataclass(frozen=True)
class Deployment:
    """What policies see of a deployment."""

    name: str
    kind: str
    region: str
    cleared: bool


def is_cleared(url: str, stated: bool | None) -> bool:  # noqa: FBT001 - what the file states, or nothing
    """Return what is stated; where nothing is, whether the URL is on this machine, so that nothing leaves it."""
    if stated is not None:
        return stated
    # `{port}` in a URL is filled in at the start.
    return urlsplit(url.replace("{port}", "1")).hostname in _HERE


def deployments(path: Path) -> dict[str, Deployment]:
    """Return the deployments of the file that inference reads too, by name; raise DeploymentsFileError."""
    try:
        content = yaml.safe_load(path.read_text())["deployments"]
        return {
            str(name): Deployment(str(name), str(spec["kind"]), str(spec.get("region", "")), is_cleared(spec["url"], spec.get("cleared")))
            for name, spec in content.items()
        }
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise DeploymentsFileError(f"{path}: {' '.join(repr(error).split())}") from error
