"""`strata eval` and `strata router train`: judge the product's own decisions on any file."""

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cli.leaving import InputError
from cli.options import AsJson, print_json
from cli.place import repository

router_app = typer.Typer(no_args_is_help=True, help="The router's classifiers.")
out = Console()


@router_app.callback()
def _router() -> None:
    """Keep `train` a sub-command while it is the only one."""


def suites() -> list[str]:
    """Return the names of the suites that the installed services offer."""
    return sorted(entry.name for entry in entry_points(group="strata.evals"))


def evaluate(
    suite: Annotated[str, typer.Argument(help="Name of the suite, such as retrieval, routing, injection, pii, grounding.")],
    data: Annotated[Path, typer.Option(help="File or folder in the suite's format.", exists=True)],
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="name=value, passed to the suite.")] = None,
    taxonomy: Annotated[Path | None, typer.Option(help="Taxonomy made by `strata router train`, for routing.")] = None,
    *,
    ablate: Annotated[bool, typer.Option("--ablate", help="Also score each part alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score a suite on data that it has never seen."""
    import os

    os.environ.setdefault("STRATA_HOME", str(repository()))
    found = list(entry_points(group="strata.evals", name=suite))
    if not found:
        raise InputError(f"unknown suite {suite!r}; known: {suites()}")
    if wrong := [item for item in option or [] if "=" not in item]:
        raise InputError(f"option {wrong[0]!r} is not name=value")
    options = dict(item.split("=", 1) for item in option or [])
    options |= {"taxonomy": str(taxonomy)} if taxonomy else {}
    options |= {"ablate": "true"} if ablate else {}
    try:
        result: dict[str, Any] = found[0].load()(data, options=options)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    if as_json:
        print_json(result)
    else:
        out.print_json(json.dumps(result))


@router_app.command()
def train(
    data: Annotated[Path, typer.Option(help="JSON lines of {text, label}; label `oos` is out of scope.", exists=True)],
    file: Annotated[Path, typer.Option("--out", help="File the taxonomy is written to.")],
) -> None:
    """Train a taxonomy on labelled texts, for the router and for `strata eval routing --taxonomy`."""
    # What fits it takes seconds to import, which no other command should wait for.
    from encoders.taxonomy import train_taxonomy

    try:
        result = train_taxonomy(data, file)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    out.print_json(json.dumps(result))
