"""Writing a bundle: beside its destination, then renamed, so that a half-written one is never found."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from napari_mamba.bundles.bundle import Bundle
from napari_mamba.bundles.description.writing import to_json
from napari_mamba.bundles.guards.familiarity import FAMILIARITY, Familiarity
from napari_mamba.bundles.progress import Counted, OnProgress, part, silent
from napari_mamba.bundles.source import CARD, DESCRIPTION
from napari_mamba.bundles.spec import BundleSpec, Network
from napari_mamba.bundles.vocabulary import Dtype
from napari_mamba.errors import BundleError, InputError, OutputError
from napari_mamba.io.paths import expanded

if TYPE_CHECKING:
    from torch import Tensor

_PIECE = 2**24


def save(
    destination: str | os.PathLike[str],
    spec: BundleSpec,
    state_dicts: Sequence[Mapping[str, Tensor]],
    card: str = "",
    *,
    dtype: Dtype = "float32",
    overwrite: bool = False,
    pictures: Mapping[str, bytes] | None = None,
    familiarity: Familiarity | None = None,
    on_progress: OnProgress = silent,
) -> Path:
    """Write a bundle.

    Parameters
    ----------
    destination : path
        A folder to make, or a file ending in ".zip".
    spec : BundleSpec
        What goes into `bundle.json`.
    state_dicts : sequence of mapping
        One a member of the ensemble. Each must be exactly the weights of `spec.network`, or of its own of
        `spec.member_networks`.
    card : str
        Markdown for `README.md`.
    dtype : {"float32", "float16", "int8"}
        How floating-point weights are stored: "int8" has kernels and matrices in eight bits with a scale for each
        output channel. They are always used in float32.
    overwrite : bool
        Replace a bundle that is there already; nothing but a bundle is ever replaced.
    pictures : mapping of str to bytes, optional
        PNG files that the card shows, by name ("calibration.png").
    familiarity : Familiarity, optional
        How the images of the training look: what a run compares an image with.
    on_progress : callable, optional
        Told what is being done, and the share of the whole that is done (0 to 1).

    Returns
    -------
    Path
        `destination`.

    Raises
    ------
    InputError
        If `dtype` is another.
    BundleError
        If the weights are not the network's.
    OutputError
        If `destination` exists or cannot be written.
    """
    destination = expanded(destination)
    if dtype not in (known := get_args(Dtype)):
        raise InputError(f"weights are stored as {', '.join(known[:-1])} or {known[-1]}, not as {dtype!r}")
    check_destination(destination, overwrite)
    files = {
        **_weights(spec, state_dicts, dtype, part(on_progress, 0, 0.6)),
        CARD: (card or f"# {spec.title}\n").encode(),
    }
    files |= _pictures(pictures or {})
    files |= {FAMILIARITY: familiarity.to_bytes()} if familiarity is not None else {}
    sums = _sums(files, part(on_progress, 0.6, 0.8))
    weights = {name: digest for name, digest in sums.items() if name.endswith(".safetensors")}
    others = {name: digest for name, digest in sums.items() if name not in weights}
    text = json.dumps(to_json(spec, weights, others), indent=2, ensure_ascii=False)
    files = {DESCRIPTION: (text + "\n").encode(), **files}
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".bundle-") as beside:
            counted = Counted(part(on_progress, 0.8, 1), "Writing the bundle", sum(map(len, files.values())))
            written = (_write_zip if destination.suffix == ".zip" else _write_folder)(Path(beside), files, counted)
            if destination.exists():
                os.replace(destination, Path(beside) / "replaced")
            os.replace(written, destination)
    except OSError as error:
        raise OutputError(f"{destination}: the bundle cannot be written ({error.strerror or error})") from error
    return destination


def _sums(files: Mapping[str, bytes], on_progress: OnProgress) -> dict[str, str]:
    counted = Counted(on_progress, "Computing check sums", sum(map(len, files.values())))
    sums = {}
    for name, data in files.items():
        sums[name] = hashlib.sha256(data).hexdigest()
        counted.add(len(data))
    return sums


def update(
    bundle: Bundle,
    spec: BundleSpec | None = None,
    card: str | None = None,
    *,
    familiarity: Familiarity | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a bundle in its folder anew, with something changed; what is not given stays as it is, the weights always.

    Parameters
    ----------
    bundle : Bundle
        In a folder.
    spec, card, familiarity, pictures
        As `save` takes them. The pictures given are added to those that are there.

    Raises
    ------
    BundleError, OutputError
        As `save` and `Bundle.state_dicts` do.
    """
    from napari_mamba.bundles.weights import smallest

    weights = list(bundle.state_dicts())
    kept = {path.name: path.read_bytes() for path in sorted(Path(bundle.path).glob("*.png"))}
    return save(
        bundle.path,
        spec or bundle.spec,
        weights,
        bundle.card if card is None else card,
        dtype=smallest(weights),
        overwrite=True,
        pictures={**kept, **(pictures or {})},
        familiarity=familiarity or bundle.familiarity,
    )


def _pictures(pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    for name, data in pictures.items():
        if Path(name).name != name or not name.endswith(".png") or not data.startswith(b"\x89PNG"):
            raise BundleError(f"{name!r} is no PNG file with a plain name: a bundle's pictures are PNG files")
    return dict(pictures)


def check_destination(destination: Path, overwrite: bool) -> None:
    """Raise `OutputError` if a bundle may not be written to `destination`; importers ask before they do the work."""
    if not destination.exists():
        return
    if not overwrite:
        raise OutputError(f"{destination} is already there: add --overwrite to replace it, or choose another name")
    if not (
        (destination / DESCRIPTION).is_file() or (destination.suffix == ".zip" and zipfile.is_zipfile(destination))
    ):
        raise OutputError(f"{destination}: is not a bundle and will not be overwritten: choose another place")


def _weights(
    spec: BundleSpec, state_dicts: Sequence[Mapping[str, Tensor]], dtype: Dtype, on_progress: OnProgress
) -> dict[str, bytes]:
    from safetensors.torch import save as serialise

    from napari_mamba.bundles.weights import build, compact, fill

    files, network, built = {}, None, None
    counted = Counted(on_progress, "Checking the weights", len(state_dicts))
    for number, (kind, weights) in enumerate(zip(_kinds(spec, len(state_dicts)), state_dicts, strict=True)):
        if network is None or kind != built:
            network, built = build(spec, weights, kind), kind
        fill(network, weights, f"bundle {spec.name}")
        name = "weights.safetensors" if len(state_dicts) == 1 else f"weights_{number}.safetensors"
        files[name] = serialise(compact(network, weights, dtype), metadata={"format": "pt"})
        counted.add(1)
    return files


def _kinds(spec: BundleSpec, count: int) -> tuple[Network, ...]:
    kinds = spec.networks_of(count)
    if len(kinds) != count:
        raise BundleError(f"bundle {spec.name}: has {count} sets of weights, and {len(kinds)} networks for them")
    return kinds


def _write_folder(beside: Path, files: Mapping[str, bytes], counted: Counted) -> Path:
    folder = beside / "bundle"
    folder.mkdir()
    for name, data in files.items():
        with (folder / name).open("wb") as file:
            for start in range(0, len(data), _PIECE):
                counted.add(file.write(memoryview(data)[start : start + _PIECE]))
    shutil.copymode(beside.parent, folder)
    return folder


def _write_zip(beside: Path, files: Mapping[str, bytes], counted: Counted) -> Path:
    path = beside / "bundle.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
            counted.add(len(data))
    return path
