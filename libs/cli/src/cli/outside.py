"""`strata audit verify-receipt` and `verify-bundle`: what outsiders check with a file and public keys, and no stack."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.leaving import InputError
from cli.options import AsJson, print_json
from evidence import bundles, receipts
from evidence.findings import Findings
from tlog.notes import InvalidNoteError, Verifier, parse_verifier

app = typer.Typer(no_args_is_help=True, help="Check receipts and evidence offline.")
out = Console(soft_wrap=True)
_LARGEST_RECEIPT = 1024**2
File = Annotated[Path, typer.Argument(metavar="FILE", help="File to check.", exists=True, dir_okay=False)]
Keys = Annotated[
    list[str] | None,
    typer.Option("--key", help="Verifier key of the log or of a witness, or @FILE with one a line; each witness given must have signed."),
]


def trusted(keys: list[str] | None) -> list[Verifier]:
    """Return the keys of the command line; raise InputError when one is none."""
    try:
        lines = [line for key in keys or () for line in (Path(key[1:]).read_text().splitlines() if key.startswith("@") else [key])]
        return [parse_verifier(line) for line in lines if line.strip()]
    except (OSError, InvalidNoteError) as error:
        raise InputError(str(error)) from error


def tell(found: Findings, *, as_json: bool) -> None:
    """Print what was found and leave with 1 when it does not hold."""
    if as_json:
        content = {"holds": found.holds, **found.facts, "problems": found.problems, "remarks": found.remarks}
        print_json(content)
    else:
        out.print("[green]holds[/green]" if found.holds else "[red]does not hold[/red]", highlight=False)
        for name, value in found.facts.items():
            out.print(f"  {name}: {', '.join(map(str, value)) if isinstance(value, list) else value}", highlight=False, markup=False)
        for problem in found.problems:
            out.print(f"  problem: {problem}", highlight=False, markup=False, style="red")
        for remark in found.remarks:
            out.print(f"  remark: {remark}", highlight=False, markup=False, style="yellow")
        if found.facts.get("keys") == "in the file":
            out.print("  the keys are those in the file itself; give --key to trust nobody but who you know", highlight=False)
    if not found.holds:
        raise typer.Exit(1)


@app.command("verify-receipt")
def verify_receipt(
    file: File,
    key: Keys = None,
    text: Annotated[Path | None, typer.Option(help="File with the answer that the receipt should be for.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Check a receipt, JSON or COSE_Sign1, with nothing but the file and public keys."""
    if file.stat().st_size > _LARGEST_RECEIPT:
        raise InputError(f"{file} is too large for a receipt")
    content = None if text is None else text.read_bytes()
    tell(receipts.verify(file.read_bytes(), trusted(key), text=content), as_json=as_json)


@app.command("verify-bundle")
def verify_bundle(file: File, key: Keys = None, *, as_json: AsJson = False) -> None:
    """Check an evidence bundle with nothing but the file and public keys, and name what fails."""
    tell(bundles.verify(file, trusted(key)), as_json=as_json)
