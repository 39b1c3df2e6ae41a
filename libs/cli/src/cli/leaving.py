"""How a command ends that cannot do what it was asked: one line with a stable code on standard error, and an exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from typer._click.exceptions import ClickException, NoArgsIsHelpError, UsageError
from typer.core import TyperGroup

from chassis.errors import DeadlineError, ServiceError, UnavailableError

REFUSED, WRONG_INPUT, NOT_THERE = 1, 2, 3
_err = Console(stderr=True)


class InputError(ServiceError):
    """What the command was given is wrong; nothing was done."""

    default_code = "invalid_input"


class NotRunningError(UnavailableError):
    """No stack runs here."""

    default_code = "not_running"


def require_writable(file: Path) -> None:
    """Raise InputError where a file cannot be written, before anything is fetched for it that goes on record."""
    if file.is_dir():
        raise InputError(f"{file} is a folder")
    if not file.parent.is_dir():
        raise InputError(f"{file.parent} is no folder; make it first")


def leave(code: str, message: str, exit_code: int) -> typer.Exit:
    """Print the one line and return the exit to raise."""
    line = " ".join(f"{code}: {message}".split())
    _err.print(f"[red]strata:[/red] {escape(line)}", highlight=False, soft_wrap=True)
    return typer.Exit(exit_code)


def _unreachable() -> tuple[type[Exception], ...]:
    """Return what says that the bus is away; where its client was never imported, as for an outsider's check, it raised nothing."""
    client = sys.modules.get("nats.errors")
    return (ConnectionError, TimeoutError, *((client.Error,) if client is not None else ()))


@contextmanager
def one_line() -> Iterator[None]:
    """End the command with one line where the work within fails for a reason that is no bug; a bug keeps its traceback."""
    try:
        yield
    except InputError as error:
        raise leave(error.code, str(error), WRONG_INPUT) from error
    except (UnavailableError, DeadlineError) as error:
        raise leave(error.code, str(error), NOT_THERE) from error
    except ServiceError as error:
        raise leave(error.code, str(error), REFUSED) from error
    except httpx.TransportError as error:
        raise leave("unreachable", f"{error.request.url} does not answer: {error!r}", NOT_THERE) from error
    except BrokenPipeError:
        # Whoever read the output has gone; that is no failure of the command, and typer knows.
        raise
    except _unreachable() as error:
        raise leave("unreachable", f"the bus does not answer: {error!r}", NOT_THERE) from error
    except OSError as error:
        raise leave("file_error", str(error), REFUSED) from error


class Group(TyperGroup):
    """The root of the commands: whatever one of them raises ends in one line."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Read the options of the root."""
        with _usage():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        with _usage(), one_line():
            return super().invoke(ctx)


@contextmanager
def _usage() -> Iterator[None]:
    try:
        yield
    except NoArgsIsHelpError:
        raise
    except ClickException as error:
        context = error.ctx if isinstance(error, UsageError) else None
        more = f" (see {context.command_path} --help)" if context else ""
        raise leave("usage", error.format_message() + more, WRONG_INPUT) from error
