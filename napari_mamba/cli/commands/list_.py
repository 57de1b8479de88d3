"""`models`, `info`, `devices`: their options."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_mamba.cli.arguments import AsJson, Bundle


def models(
    architectures: Annotated[
        bool, typer.Option("--architectures", help="The networks a bundle can hold, instead of the bundles.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the bundles that can be run, or the networks behind them."""
    from napari_mamba.cli import listing

    (listing.show_architectures if architectures else listing.show_bundles)(as_json=as_json)


def info(
    bundle: Bundle,
    card: Annotated[bool, typer.Option("--card", help="Show the model card instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a bundle takes, gives and was made from."""
    from napari_mamba.cli import listing

    listing.show_info(bundle, as_json=as_json, card=card)


def devices(as_json: AsJson = False) -> None:
    """List the devices a run can use on this machine."""
    from napari_mamba.cli import listing

    listing.show_devices(as_json=as_json)
