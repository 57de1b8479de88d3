"""`serve`: its options."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def serve(
    host: Annotated[str, typer.Option(help="Address; any but the loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8471,
    token_file: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="File that holds the token; or the variable NAPARI_MAMBA_SERVER_TOKEN."),
    ] = None,
    certificate: Annotated[Optional[Path], typer.Option(metavar="PEM", help="Certificate: serve HTTPS.")] = None,
    key: Annotated[Optional[Path], typer.Option(metavar="PEM", help="The certificate's private key.")] = None,
    device: Annotated[
        Optional[list[str]], typer.Option(help="Compute on this device; several times for several queues.")
    ] = None,
    scheduler: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            envvar="NAPARI_MAMBA_SCHEDULER",
            help="Have a Dask cluster compute, whose workers see the folder.",
        ),
    ] = "",
    folder: Annotated[Optional[Path], typer.Option(help="For uploads and results; emptied at the start.")] = None,
    largest_upload: Annotated[float, typer.Option(metavar="GB", min=0.001, help="Largest file taken.")] = 4.0,
    gone_after: Annotated[float, typer.Option(metavar="S", min=1, help="End runs whose client is gone so long.")] = 120,
) -> None:
    """Compute for other computers, such as those with 3D Slicer, over HTTP (docs/server.md)."""
    from napari_mamba.server.serving import default_folder
    from napari_mamba.server.serving import serve as run_server
    from napari_mamba.server.settings import GIGABYTE, Settings, read_token

    settings = Settings(
        host=host,
        port=port,
        folder=folder or default_folder(port),
        token=read_token(token_file),
        devices=tuple(device or ()),
        scheduler=scheduler,
        largest_upload=int(largest_upload * GIGABYTE),
        gone_seconds=gone_after,
    )
    raise typer.Exit(run_server(settings, certificate, key))
