"""`strata knowledge init`: what OpenSearch needs before ingestor and retriever use it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cli.options import DEFAULT_STATE, AsJson, State, print_json

# Every start of the command reads this file, and what it needs takes a third of such a start.
if TYPE_CHECKING:
    from knowledge.opensearch_provisioning import Setup

out = Console()


def init(
    url: Annotated[str, typer.Option(help="URL of OpenSearch, such as https://localhost:9200.")],
    state: State = DEFAULT_STATE,
    ca: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Authority of its certificate, PEM; none takes the system's.")
    ] = None,
    admin_user: Annotated[
        str, typer.Option(help="User who may make roles, users, templates and indices; empty asks without one.")
    ] = "admin",
    admin_password_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="File whose first line is that user's password.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make roles, users, templates, indices and aliases on OpenSearch; what is there is kept, so it can be run again."""
    from knowledge.opensearch_client import Connection, OpenSearchSettings
    from knowledge.opensearch_provisioning import setup

    if admin_user and admin_password_file is None:
        raise typer.BadParameter("--admin-password-file is needed, or --admin-user '' for a cluster without users")
    connection = Connection(OpenSearchSettings(url=url, ca_file=ca, user=admin_user, password_file=admin_password_file))
    _show(setup(connection, state.resolve() / "credentials", _encoder(state)), as_json=as_json)


def _encoder(state: Path) -> str:
    """Return the key of the encoder that is served, or of the installed one before anything was."""
    from encoders import Encoder
    from knowledge.generations import Generations

    served = Generations(state / "knowledge").read()
    return served.serving.encoder if served else Encoder.load().identity.key()


def _show(done: "Setup", *, as_json: bool) -> None:
    if as_json:
        content = {"templates": done.templates, "users": {name: str(file) for name, file in done.users.items()}, "indices": done.indices}
        print_json(content)
        return
    out.print(f"templates: {', '.join(done.templates)}", highlight=False, soft_wrap=True)
    for name, file in done.users.items():
        out.print(f"user {name}: password in {file}", highlight=False, soft_wrap=True)
    out.print(f"indices: {', '.join(done.indices)}", highlight=False, soft_wrap=True)
    out.print("services use it with STRATA_INGESTOR_KNOWLEDGE__BACKEND and STRATA_RETRIEVER_KNOWLEDGE__BACKEND=opensearch, ...__URL")
