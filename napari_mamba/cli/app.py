"""The commands. Each is a function of its options in a file of `commands/`, and one line here.

What a command calls is imported when it runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from napari_mamba.cli.commands.adapt import adapt
from napari_mamba.cli.commands.batch import batch
from napari_mamba.cli.commands.explain import explain
from napari_mamba.cli.commands.heart import heart
from napari_mamba.cli.commands.import_ import import_
from napari_mamba.cli.commands.list_ import devices, info, models
from napari_mamba.cli.commands.measure import measure
from napari_mamba.cli.commands.radiotherapy.dose import register as register_dose
from napari_mamba.cli.commands.radiotherapy.dvh import register as register_dvh
from napari_mamba.cli.commands.radiotherapy.rtstruct import register as register_rtstruct
from napari_mamba.cli.commands.register import register as register_images
from napari_mamba.cli.commands.run import run
from napari_mamba.cli.commands.serve import serve
from napari_mamba.cli.commands.train import evaluate, join, train

app = typer.Typer(
    name="napari-mamba",
    help="Mamba (state-space) models on medical volumes: segment, restore, classify. Not for clinical use.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from napari_mamba import __version__

        typer.echo(f"napari-mamba {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command()(models)
app.command()(info)
app.command()(devices)
app.command()(run)
app.command()(batch)
app.command("register")(register_images)
app.command()(heart)
app.command()(explain)
app.command()(measure)
app.command("import")(import_)
app.command()(train)
app.command()(adapt)
app.command()(evaluate)
app.command()(join)
app.command()(serve)
register_dose(app)
register_dvh(app)
register_rtstruct(app)
