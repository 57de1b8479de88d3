"""What a client may ask for. Nothing of it becomes a path, and only listed options reach the command."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from napari_mamba.explain.kinds import MAPS

InputSuffix = Literal[".nrrd", ".nii", ".nii.gz", ".mha"]
ImageSuffix = Literal[".nrrd", ".nii.gz", ".seg.nrrd", ".mha"]
OUTPUTS = ("output", "probabilities", "uncertainty", "residual")

_Text = Annotated[str, Field(max_length=200)]
_Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cluster|cuda(:\d{1,3})?)$")]
_Map = Annotated[str, Field(pattern=f"^({'|'.join(MAPS)})$")]
_Cell = Annotated[str, Field(max_length=400)]
_Sizes = Annotated[str, Field(max_length=40, pattern=r"^[0-9.,x]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Options(_Strict):
    """Options of the command `run`, by its names."""

    device: _Device = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    tile: _Sizes = ""
    spacing: _Sizes = ""
    axis: Literal["", "z", "y", "x", "all"] = ""
    slice_profile: Literal["", "gaussian", "box", "sinc", "unknown"] = ""
    overlap: Annotated[float, Field(ge=0, le=0.9)] | None = None
    mirror: bool | None = None
    strength: Annotated[float, Field(ge=0, le=150)] | None = None
    resample_channels: bool = False
    batch_size: Annotated[int, Field(ge=1, le=1024)] | None = None
    replace_nonfinite: Annotated[float, Field(allow_inf_nan=False)] | None = None
    deterministic: bool = False
    clip: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    def words(self, device: str) -> list[str]:
        """Arguments of the command, with the device that the queue stands for."""
        words = [f"--device={device}"]
        for name in ("precision", "tile", "spacing", "axis"):
            value = getattr(self, name)
            if value and value != "auto":
                words.append(f"--{name}={value}")
        if self.slice_profile:
            words.append(f"--slice-profile={self.slice_profile}")
        if self.overlap is not None:
            words.append(f"--overlap={self.overlap:g}")
        if self.strength is not None:
            words.append(f"--strength={self.strength:g}")
        if self.batch_size is not None:
            words.append(f"--batch-size={self.batch_size}")
        if self.replace_nonfinite is not None:
            words.append(f"--replace-nonfinite={self.replace_nonfinite!r}")
        if self.mirror is not None:
            words.append("--mirror" if self.mirror else "--no-mirror")
        if self.resample_channels:
            words.append("--resample-channels")
        if self.deterministic:
            words.append("--deterministic")
        if not self.clip:
            words.append("--no-clip")
        if self.seed is not None:
            words.append(f"--seed={self.seed}")
        return words


class CaseRequest(_Strict):
    """One image: a suffix for each channel that will be uploaded, and one for each output that is wanted.

    `row` are cells of a table beside the image, by their headings, for models that take some.
    """

    name: _Text = ""
    inputs: Annotated[list[InputSuffix], Field(min_length=1, max_length=16)]
    outputs: dict[Literal["output", "probabilities", "uncertainty", "residual"], ImageSuffix] = {}
    region: Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(min_length=6, max_length=6)] | None = None

    row: Annotated[dict[_Text, _Cell], Field(max_length=256)] | None = None

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        return _printable(name)


class Explain(_Strict):
    """A look inside instead of an answer: options of the command `explain`, by its names."""

    what: Annotated[list[_Map], Field(min_length=1, max_length=len(MAPS))] = ["state"]
    world: Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(min_length=3, max_length=3)] | None = None
    layer: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.#]{0,200}$")] = ""
    path: Annotated[int, Field(ge=0, le=1000)] = 0
    target: _Text = ""
    member: Annotated[int, Field(ge=1, le=100)] = 1
    only_list: bool = False

    def words(self, device: str) -> list[str]:
        """Arguments of the command, with the device that the queue stands for."""
        words = [f"--device={device}", f"--what={','.join(self.what)}", f"--member={self.member}"]
        if self.world is not None:
            words.append("--world=" + ",".join(f"{value:.6g}" for value in self.world))
        if self.layer:
            words.append(f"--layer={self.layer}")
        if self.path:
            words.append(f"--direction={self.path}")
        if self.target:
            words.append(f"--class={_printable(self.target)}")
        if self.only_list:
            words.append("--list")
        return words


class RunRequest(_Strict):
    """A run, or a look inside."""

    bundle: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
    cases: Annotated[list[CaseRequest], Field(min_length=1, max_length=1000)]
    options: Options = Options()
    explain: Explain | None = None

    @model_validator(mode="after")
    def _one_image(self) -> RunRequest:
        if self.explain is not None and (
            len(self.cases) != 1 or self.cases[0].outputs or self.cases[0].region or self.cases[0].row
        ):
            raise ValueError("a look inside is of one image, and its maps are no outputs")
        return self


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())
