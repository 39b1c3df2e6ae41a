"""The options that most commands have, and how they print what is asked for as JSON."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_STATE = Path(".strata")
State = Annotated[Path, typer.Option("--state", envvar="STRATA_STATE_DIR", help="Folder of all state of the stack.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]


def print_json(content: Any) -> None:
    """Print one line of JSON, alone on standard output."""
    sys.stdout.write(json.dumps(content) + "\n")
