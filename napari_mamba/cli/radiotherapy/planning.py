"""What `dose` does: read the CT and its structures, predict, write, and tell what each structure gets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.failures import quiet_libraries
from napari_mamba.cli.radiotherapy.dosing import print_table
from napari_mamba.errors import InputError, OutputError

if TYPE_CHECKING:
    import numpy as np

    from napari_mamba.radiotherapy.planning import Predict
    from napari_mamba.volume import Volume

NETWORK = "fluence_dose"
"""What a dose bundle has in it."""


def predict(
    bundle: str,
    image: Path,
    structures_path: Path,
    output: Path,
    *,
    prescription: Sequence[str],
    names: str,
    device: str,
    overwrite: bool,
) -> None:
    """Write the dose, and print the table of the structures."""
    if output.exists() and not overwrite:
        raise OutputError(f"{output} is already there: add --overwrite to replace it, or choose another name")
    with quiet_libraries():
        from napari_mamba import bundles, io
        from napari_mamba.radiotherapy import histogram, planning, sources
        from napari_mamba.radiotherapy.rtdose import write_dose

        loaded = bundles.load(bundle)
        if loaded.network.name != NETWORK:
            raise InputError(f"{loaded.name} predicts no dose: choose a bundle for doses, such as dose-headneck-ct")
        inputs = planning.HEAD_NECK
        ct, reference = sources.planning_ct(image)
        frame = reference.frame if reference else ""
        structures = sources.structures(structures_path, ct, names=sources.names_of(names), frame=frame)
        ready = planning.prepared(ct, structures, inputs, prescriptions_of(prescription))
        for note in ready.notes:
            print(f"note: {note}", file=sys.stderr)
        dose = planning.predicted(ready, ct, inputs, network_of(loaded, device))
        if output.suffix.lower() == ".dcm":
            write_dose(dose, output, reference)
        else:
            io.write(dose, output)
        print_table(histogram.table(_values(dose), structures))
        print(f"{output}: a prediction of what was done in one hospital, never a plan. Not for clinical use.")


def prescriptions_of(given: Sequence[str]) -> dict[str, float]:
    """Gy by name, from "PTV=70"; raises `InputError`."""
    found = {}
    for text in given:
        name, _, dose = text.rpartition("=")
        try:
            found[name.strip()] = float(dose.lower().removesuffix("gy"))
        except ValueError:
            raise InputError(f"{text!r} prescribes nothing: write the target's name, = and Gy, PTV=70") from None
    return found


def network_of(loaded: Any, device: str) -> Predict:
    """A bundle's network, or the mean of its ensemble's, as a function of channels."""
    import torch

    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    networks = [network.to(place).eval() for network in loaded.networks()]

    def answer(channels: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(channels)[None].to(place)
        with torch.inference_mode(), torch.autocast(place.type, torch.bfloat16):
            doses = [network(x)[0, 0].float() for network in networks]
        return torch.stack(doses).mean(0).cpu().numpy()

    return answer


def _values(dose: Volume) -> np.ndarray:
    import numpy as np

    return np.asarray(dose.data[0])
