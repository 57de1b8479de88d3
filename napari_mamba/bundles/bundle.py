"""Bundles on disk: finding and loading them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mamba.bundles.source import CARD, DESCRIPTION, Source
from napari_mamba.bundles.spec import BundleSpec, from_json
from napari_mamba.errors import BundleError, InputError
from napari_mamba.io.paths import expanded

if TYPE_CHECKING:  # torch takes seconds to import, and a list of bundles needs none of it
    from torch import Tensor, nn

SHIPPED = Path(__file__).parent / "shipped"
ENVIRONMENT = "NAPARI_MAMBA_BUNDLES"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Bundle(BundleSpec):
    """A network with its weights and all that is needed to run it on a volume. Made by `load`.

    Attributes beyond those of `BundleSpec`:

    path : Path
        The folder or zip.
    weights : tuple of Path
        One file a member of the ensemble; inside the zip where `path` is one.
    sha256 : str
        Checksum over `bundle.json` and the weights: the bundle's identity in provenance.
    card : str
        The text of `README.md`, or empty.
    """

    path: Path = Path()
    weights: tuple[Path, ...] = ()
    declared: dict[str, str] = field(default_factory=dict, repr=False)
    source: Source = field(default_factory=lambda: Source(Path()), repr=False)

    @property
    def spec(self) -> BundleSpec:
        """What `bundle.json` says, without where it lies: to write it again with something changed."""
        return BundleSpec(**{field.name: getattr(self, field.name) for field in fields(BundleSpec)})

    @cached_property
    def sha256(self) -> str:
        whole = hashlib.sha256(self.source.read(DESCRIPTION))
        for file in self.weights:
            digest = self.declared.get(file.name) or hashlib.sha256(self.source.read(file.name)).hexdigest()
            whole.update(bytes.fromhex(digest))
        return whole.hexdigest()

    @cached_property
    def card(self) -> str:
        return self.source.text(CARD) if self.source.has(CARD) else ""

    def state_dicts(self) -> Iterator[dict[str, Tensor]]:
        """The weights of each member of the ensemble, in float32, checked against their checksums.

        Raises
        ------
        BundleError
            If a file is damaged or is not safetensors.
        """
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load as parse

        from napari_mamba.bundles import eight_bits

        for file in self.weights:
            data = self.source.read(file.name)
            wanted = self.declared.get(file.name)
            if wanted and hashlib.sha256(data).hexdigest() != wanted:
                raise BundleError(f"{file}: is damaged (its checksum is not the one in {DESCRIPTION}): get it again")
            try:
                tensors = parse(data)
            except SafetensorError as error:
                raise BundleError(f"{file}: is not a safetensors file or is cut off ({error})") from error
            try:
                whole = eight_bits.whole(tensors)
            except BundleError as error:
                raise BundleError(f"{file}: {error}") from error
            yield {key: t.to(torch.float32) if t.is_floating_point() else t for key, t in whole.items()}

    def networks(self) -> list[nn.Module]:
        """The networks of the ensemble, with their weights, in float32 and eval mode, on the CPU.

        Raises
        ------
        BundleError
            If the weights are damaged or are not those of the named network.

        Examples
        --------
        >>> network, = load("hippocampus-mr").networks()  # doctest: +SKIP
        """
        from napari_mamba.bundles.weights import build, fill

        return [fill(build(self), weights, str(self.path)).eval() for weights in self.state_dicts()]


def load(name_or_path: str | os.PathLike[str]) -> Bundle:
    """Load a bundle by its name (one of `available`) or its place.

    Parameters
    ----------
    name_or_path : str or path
        A name such as "hippocampus-mr", or the path of a bundle's folder or zip. A name is looked up first in the
        user's folder, then among those shipped.

    Returns
    -------
    Bundle
        Checked, weights not read yet.

    Raises
    ------
    BundleError
        If there is no such bundle, or it is damaged or contradicts itself.
    """
    from napari_mamba import models

    bundle = read(_find(name_or_path))
    try:
        models.info(bundle.network.name)
    except InputError as error:
        raise BundleError(f"{bundle.path}: {error}") from error
    return bundle


def read(path: Path) -> Bundle:
    """The bundle at `path`, without asking whether its network is known (and so without importing torch)."""
    source = Source.at(path)
    where = f"{source.path}/{DESCRIPTION}"
    try:
        values = json.loads(source.text(DESCRIPTION))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: is not valid JSON ({error})") from error
    spec, names, declared = from_json(values, where)
    for name in names:
        if not source.has(name):
            raise BundleError(f"{source.path}: lacks the weights {name}: get the bundle again")
    weights = tuple(source.path / name for name in names)
    return Bundle(**vars(spec), path=source.path, weights=weights, declared=declared, source=source)


def available() -> list[Bundle]:
    """Every bundle that `load` finds by name, sorted by name; a user's own hides the shipped one of its name.

    Quick, and without importing torch. Damaged bundles are left out, with a line in the log.
    """
    found: dict[str, Bundle] = {}
    for root in (user_folder(), SHIPPED):
        for path in sorted(root.iterdir()) if root.is_dir() else ():
            if path.name.startswith(".") or not ((path / DESCRIPTION).is_file() or path.suffix == ".zip"):
                continue
            try:
                bundle = read(path)
            except BundleError as error:
                _log.warning("bundle left out: %s", error)
            else:
                found.setdefault(bundle.name, bundle)
    return [found[name] for name in sorted(found)]


def user_folder() -> Path:
    """Where the user's own bundles live: `$NAPARI_MAMBA_BUNDLES`, or the platform's data folder."""
    if chosen := os.environ.get(ENVIRONMENT):
        return expanded(chosen)
    import platformdirs

    return Path(platformdirs.user_data_dir("napari-mamba", appauthor=False)) / "bundles"


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    path = expanded(name_or_path)
    if path.exists() or len(path.parts) != 1:
        return path
    bundles = {bundle.name: bundle.path for bundle in available()}
    if path.name in bundles:
        return bundles[path.name]
    known = ", ".join(bundles) or "none yet"
    raise BundleError(f"there is no bundle called {path.name!r}; known are: {known}")
