"""What a dose is predicted from: a bundle, a CT, structures, and what each structure is. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import SignalGroupDescriptor

from napari_mamba.engine import RunOptions
from napari_mamba.engine.suitability import examine
from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.inputs import Inputs
from napari_mamba.radiotherapy.planning import Plan, planned
from napari_mamba.radiotherapy.sources import check_ct
from napari_mamba.radiotherapy.structures import Structure, StructureSet, is_outline
from napari_mamba.ui.layers import layers_to_volume, placement
from napari_mamba.ui.radiotherapy.files import check_whole, series_under
from napari_mamba.ui.radiotherapy.layers import check_frames, is_dose, structures_of
from napari_mamba.ui.run.queue.jobs import Job

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

TARGET, OUTLINE, NOTHING = "target", "patient's outline", "not used"


@dataclass(frozen=True)
class Use:
    """What a structure is: the name of an organ, `TARGET`, `OUTLINE` or `NOTHING`; `dose` in Gy of a target."""

    what: str
    dose: float = 0.0


@dataclass(frozen=True, eq=False)
class Checked:
    """A plan that can be run."""

    plan: Plan


@dataclass
class Prediction:
    """The choice behind the page.

    Parameters
    ----------
    bundle : Bundle or None
        One for doses.
    ct : Image layer or None
    layers : tuple of Labels layers
    uses : dict of str to Use
        By structure; filled by `suggest`.
    checked : Checked or None
        What would run now.
    """

    bundle: Any = None
    ct: Any = None
    layers: tuple[Any, ...] = ()
    uses: dict[str, Use] | None = None
    checked: Checked | None = None
    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    @property
    def choices(self) -> list[str]:
        """What a structure can be."""
        inputs: Inputs | None = self.bundle.planning if self.bundle else None
        organs = [organ.name for organ in inputs.organs] if inputs else []
        return [NOTHING, TARGET, *organs, OUTLINE]

    @property
    def problem(self) -> str:
        """What is to be chosen first; empty where a check makes sense."""
        if self.bundle is None:
            return "No bundle for doses is installed: open one in Plugins ▸ Mamba medical imaging ▸ Models."
        if self.ct is None:
            return "Open the planning CT, and choose it here."
        if is_dose(self.ct):
            return f"'{self.ct.name}' is a dose: choose the planning CT."
        if not self.layers:
            return "Open an RTSTRUCT, or draw labels, and tick their layer."
        return ""

    # ---- what each structure is

    def structures(self) -> StructureSet:
        """The structures on the CT's grid; takes a moment. Raises `InputError`."""
        check_frames([self.ct, *self.layers])
        volume, _ = layers_to_volume([self.ct])
        return structures_of(self.layers, volume)

    def suggest(self, structures: StructureSet) -> dict[str, Use]:
        """What each structure is by its name, where the user has not said otherwise."""
        known = self.uses or {}
        return {one.name: known.get(one.name) or self._use_of(one) for one in structures}

    def _use_of(self, one: Structure) -> Use:
        inputs: Inputs | None = self.bundle.planning if self.bundle else None
        if inputs and (organ := inputs.organ_of(one)):
            return Use(NOTHING if one.empty else organ.name)
        if is_outline(one):
            return Use(OUTLINE)
        if one.target and one.kind.upper() not in ("CTV", "GTV"):
            return Use(TARGET, one.prescription or 0.0)
        return Use(NOTHING)

    def set_use(self, name: str, use: Use) -> None:
        """The user says what a structure is."""
        self.checked = None
        self.uses = {**(self.uses or {}), name: use}

    # ---- the run

    def check(self) -> tuple[dict[str, Use], Plan]:
        """What each structure is, and the plan of it; takes a moment, and may run in a thread.

        Raises
        ------
        InputError
            In a sentence, whatever stands against a prediction.
        """
        if self.problem:
            raise InputError(self.problem)
        volume, _ = layers_to_volume([self.ct])
        volume = volume.with_data(np.asarray(volume.data))
        check_ct(volume, f"'{self.ct.name}'", series_under(self.ct))
        check_whole(self.ct, self.layers)
        structures = self.structures()
        uses = self.suggest(structures)
        plan = planned(volume, self._renamed(structures, uses), self.bundle.planning)
        found = examine(plan.volume, self.bundle)  # told before the click: another region of the body, say
        if found.refusals:
            raise InputError(found.refusals[0])
        return uses, replace(plan, notes=(*plan.notes, *found.warnings))

    def _renamed(self, structures: StructureSet, uses: dict[str, Use]) -> StructureSet:
        """The structures by the names that the bundle knows; those that are not used are left out."""
        found, taken = [], dict[str, str]()
        for one in structures:
            use = uses[one.name]
            if use.what == NOTHING:
                continue
            if use.what == TARGET:
                if not use.dose > 0 and not one.empty:
                    raise InputError(f"the target {one.name!r} has no prescription: give it in Gy")
                found.append(replace(one, kind="PTV", prescription=use.dose or None))
                continue
            if use.what in taken:
                raise InputError(
                    f"both {taken[use.what]!r} and {one.name!r} are said to be the {use.what}: keep one of them"
                )
            taken[use.what] = one.name
            kind = "EXTERNAL" if use.what == OUTLINE else "ORGAN"
            found.append(replace(one, name="Body" if use.what == OUTLINE else use.what, kind=kind, prescription=None))
        return StructureSet(tuple(found), structures.affine, structures.frame, structures.notes)

    def job(self, options: RunOptions | None = None) -> Job:
        """The run of what was checked; raises `InputError` where nothing was."""
        if self.checked is None:
            raise InputError("the plan was not checked: wait a moment")
        bundle: Bundle = self.bundle
        volume, notes = self.checked.plan.volume, self.checked.plan.notes
        return Job(
            title=self.ct.name,
            bundle=bundle,
            options=options or RunOptions(),
            read=lambda: volume,
            place=placement(self.ct),
            told=notes,
        )
