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

from napari_mamba.bundles.description.reading import from_json
from napari_mamba.bundles.doors import explained, parsed
from napari_mamba.bundles.guards.familiarity import FAMILIARITY, Familiarity, familiarity_of
from napari_mamba.bundles.source import CARD, DESCRIPTION, Source
from napari_mamba.bundles.spec import BundleSpec
from napari_mamba.errors import BundleError, InputError
from napari_mamba.io.common.guard import quoted
from napari_mamba.io.paths import expanded

if TYPE_CHECKING:  # torch takes seconds to import, and a list of bundles needs none of it
    import torch
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
        Checksum over `bundle.json` and the weights: the bundle's identity in provenance. Its card has no part in it.
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
        whole = hashlib.sha256(self._described())
        for file in self.weights:
            digest = self.declared.get(file.name) or hashlib.sha256(self.source.read(file.name)).hexdigest()
            whole.update(bytes.fromhex(digest))
        return whole.hexdigest()

    def _described(self) -> bytes:
        """`bundle.json` without the checksums of other files than weights, as `save` would have written it."""
        raw = self.source.read(DESCRIPTION)
        others = self.declared.keys() - {file.name for file in self.weights}
        if not others:
            return raw
        values = json.loads(raw)
        values["sha256"] = {name: digest for name, digest in values["sha256"].items() if name not in others}
        return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()

    @cached_property
    def card(self) -> str:
        if not self.source.has(CARD):
            if CARD in self.declared:
                raise BundleError(f"{self.path}: lacks its card {CARD}: get the bundle again")
            return ""
        text = self.source.text(CARD)
        if CARD in self.declared:
            self._check_sum(CARD, self.source.read(CARD))
        return text

    @cached_property
    def familiarity(self) -> Familiarity | None:
        """How the images of its training look, or None where it keeps nothing of them.

        Raises
        ------
        BundleError
            If the file is damaged, or is not the one that was written.
        """
        if FAMILIARITY not in self.declared:
            return None
        text = self.source.text(FAMILIARITY)
        self._check_sum(FAMILIARITY, self.source.read(FAMILIARITY))
        return familiarity_of(text, str(self.path / FAMILIARITY))

    def _check_sum(self, name: str, data: bytes) -> None:
        """Raise `BundleError` if a file is not the one that was written."""
        wanted = self.declared.get(name)
        if wanted and hashlib.sha256(data).hexdigest() != wanted:
            raise BundleError(
                f"{self.path / name}: is damaged or was changed (its checksum is not the one in {DESCRIPTION}): get "
                "the bundle again"
            )

    def state_dicts(self, device: torch.device | None = None) -> Iterator[dict[str, Tensor]]:
        """The weights of each member of the ensemble, in float32, checked against their checksums.

        Parameters
        ----------
        device : torch.device, optional
            Where they are wanted, the CPU by default: a file's half precision goes there, and is half as many bytes.

        Raises
        ------
        BundleError
            If a file is damaged or is not safetensors.
        """
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load as parse

        from napari_mamba.bundles import int8

        for file in self.weights:
            data = self.source.read(file.name)
            self._check_sum(file.name, data)
            try:
                tensors = parse(data)
            except (SafetensorError, ValueError, KeyError) as error:
                raise BundleError(f"{file}: is not a safetensors file or is cut off ({quoted(error)})") from error
            try:
                whole = int8.dequantize(tensors)
            except BundleError as error:
                raise BundleError(f"{file}: {error}") from error
            there = whole if device is None else {key: t.to(device) for key, t in whole.items()}
            yield {key: t.to(torch.float32) if t.is_floating_point() else t for key, t in there.items()}

    def networks(self, device: torch.device | None = None) -> list[nn.Module]:
        """The networks of the ensemble, with their weights, in float32 and eval mode, on the CPU or another device.

        Raises
        ------
        BundleError
            If the weights are damaged or are not those of the named network.

        Examples
        --------
        >>> network, = load("hippocampus-mr").networks()  # doctest: +SKIP
        """
        from napari_mamba.bundles.weights import build, fill

        kinds = self.networks_of(len(self.weights))
        filled = [
            fill(build(self, weights, kind), weights, str(self.path)).eval()
            for kind, weights in zip(kinds, self.state_dicts(device), strict=True)
        ]
        return filled if device is None else [network.to(device) for network in filled]  # what no file holds


class KeptBundle(Bundle):
    """A bundle whose networks are built once, for several runs in a row. Made by `kept`."""

    @cached_property
    def _networks(self) -> list[nn.Module]:
        return super().networks()

    def networks(self, device: torch.device | None = None) -> list[nn.Module]:
        return [network if device is None else network.to(device) for network in self._networks]


def kept(bundle: Bundle) -> Bundle:
    """The same bundle, which keeps its networks in memory between runs.

    Examples
    --------
    >>> bundle = kept(load("hippocampus-mr"))  # doctest: +SKIP
    >>> bundle.networks()[0] is bundle.networks()[0]  # doctest: +SKIP
    True
    """
    return KeptBundle(**{one.name: getattr(bundle, one.name) for one in fields(bundle)})


@explained
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


@explained
def read(path: Path) -> Bundle:
    """The bundle at `path`, without asking whether its network is known (and so without importing torch)."""
    source = Source.at(path)
    where = f"{source.path}/{DESCRIPTION}"
    spec, names, declared = from_json(parsed(source.text(DESCRIPTION), where), where)
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
            except (BundleError, OSError) as error:  # one bad bundle must not take the others away
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
