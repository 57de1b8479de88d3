"""The cards of `mr-denoise` and `mr-superres`, in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from napari_mamba.bundles import BundleSpec
from napari_mamba.recipes.elsewhere import elsewhere
from napari_mamba.recipes.restore import report
from napari_mamba.training.scoring.classification import comparison_table
from napari_mamba.training.weights.export import describe_optimiser, describe_training

SCANS = {
    "bidirectional": "scans forwards and backwards",
    "axis": "scans along each axis",
}
VARIANTS = {
    "mamba": "scans forwards and backwards (2.4 million parameters)",
    "axis": "scans along each axis (2.4 million)",
    "conv": "no scans, convolutions alone (2.2 million)",
    "segresnet": "SegResNet (2.2 million)",
}
BATCH = "1.6 million voxels"
PSNR = {f"psnr_{level}": f"PSNR at {level}%, dB" for level in (3, 5, 9, 15)}
GAIN = {f"gain_{factor}": f"gain over spline at {factor}×, dB" for factor in (2, 3, 4)}
AHEAD = (
    "The scans are ahead of the SegResNet at every level in as many steps, by AdamW; both were still learning. By Muon "
    "they were not compared."
)
BEHIND = (
    "By Muon from random weights, at a rate of 2e-3, batches of 8 pieces of 48x32x32 voxels on an NVIDIA H200, each "
    "step 18.0 (forwards and backwards), 20.4 (each axis), 9.8 (none) and 18.2 ms (SegResNet). The SegResNet is ahead "
    "by 0.2 to 0.3 dB; all were still learning. The same network without its scans learns as much in half the time: "
    "here the scans add nothing that convolutions do not, and what is left to explain the distance is the trunk around"
    " them, residual blocks without norms where the SegResNet's have group norms. Version 1.3.0 had 4.31, 3.09 and "
    "2.64 dB on the same scans after 28,700 steps in four runs, and 1.4.0, which has learnt other profiles too, 4.09, "
    "2.96 and 2.63; none of the others was trained as long, so which ends higher is not known. A first run with scans "
    "along each axis failed on whole scans at its end, 1.1 dB below the spline; repeated, with the same seed, it did "
    "not."
)
MADE = """Voxel Mamba U-Net: 2.4 million parameters; plain residual convolutions at full resolution, MambaIR's residual
state-space block with {scans} at a half and a quarter of it, no normalisation, and the input
added at the end. The loss is the logarithm of each sample's mean squared error, so that easy and hard samples count
alike; {optimiser} in bfloat16 (the scans in float32); an exponential moving average of the weights ships, in float16.
"""

DENOISE_AIM, SUPERRES_AIM = 0.5, 1.5
"""Mean dB that were aimed at, over the best other method and over the cubic spline, at every setting."""

DENOISE_ELSEWHERE = (
    "A CT is refused. Five real head scans, as they were taken, were changed by 0.015 to 0.036% of white, which is "
    "nothing (an examination of version 1.2.0 by others).",
    "Noise of which a part of k-space is missing, as in interpolated scans: version 1.2.1, which had not learnt it, "
    "was 0.8, 2.8 and 3.1 dB below the best other method where 0.9, 0.8 and 0.67 of each in-plane axis is kept. The "
    "table above has this version's. Noise that a scanner filtered in a way of its own is untested.",
)
"""What was tried elsewhere, and by whom."""

SUPERRES_ELSEWHERE = (
    "Slices of a box profile (an examination of version 1.3.0 by others): "
    "-0.3, 0.2 and 0.2 dB over the cubic spline at 2, 3 and 4 times on T2, 0.3, 1.1 and 1.0 on T1. Version 1.4.0 has "
    "learnt nine profiles, gaps and overlaps: the table above has its gains for three of them. On those other scans it "
    "was not tried.",
    "A DICOM series whose header says that slices are thinner or thicker than they are apart is told so before a run; "
    "a NIfTI file does not say how thick its slices are.",
)
"""What was tried elsewhere, and by whom."""


def denoise(spec: BundleSpec, metrics: Mapping[str, Any], methods: Mapping[str, str], use: str) -> str:
    """The card of `mr-denoise`; says so where a number was not measured."""
    return f"""# mr-denoise

{spec.description}

**Not for clinical use.** {use}

The answer keeps the grid and the intensity scale of the input. `--residual` gives what was removed: look at it, it
should show no anatomy. `--uncertainty` gives the standard deviation over the eight flips of test-time augmentation, in
the image's units.

## How good it is

{_measured(metrics, methods, "Noise of a known strength, a share of the 99.9th percentile of the scan, was added to")}

{_aim(metrics, DENOISE_AIM, "the best other method")}
Until version 1.2.1 the aim was 1.5 dB, of white noise alone.
{_non_local_means(metrics)}
BM4D is its authors' package, once with the Rician mean taken out afterwards and once between a variance stabilisation
and its unbiased inverse; all are given the true noise level, mr-denoise estimates it. PSNR in dB above SSIM, mean ± SD
over scans; white is the 99.9th percentile. The scans carry noise of their own, 0.6 to 2.6% of white, which counts as
truth: what of it cannot be told from the noise that was added bounds every method, at about 37 dB for 3% added to 1.7%.
BM4D takes 30 seconds for a quarter of a million voxels on one core, mr-denoise some five;
five million take 51 s and 1.1 GB on two cores (AMD EPYC).

{_examples(metrics)}
Reproduce with `napari-mamba evaluate mr-denoise --data DIR`, DIR holding `native_mr` and `stroke_mr`.

## How it was made

{_made(spec, metrics)}{_trained(metrics, "mr-denoise")}

Pieces of 16 scans of four people (16 a step, of 32x56x56 voxels; until version 1.0.0, 8 of 32x80x80), turned so that
the thick slices may lie along any axis, mirrored, of changed contrast, three in ten of the clinical ones made half as
fine in their plane, one in four with its air set to zero, since version 1.2.0 one in four cut out along a smooth
border, as skull-stripping does; half with Rician and half with Gaussian noise of 0 to 20% of white, a third of them
with noise that varies through the volume by a factor of three. Since version 1.3.0 noise is made in k-space: of six
pieces in ten it is sampled in part or filtered, of a quarter of those the noise's alone, and three in ten of those are
interpolated afterwards; a quarter are the sum of squares of up to 32 coils, whose truth keeps the noise's floor, which
tissue does not tell; one truth in five is smooth, so that smooth tissue is not darkened. A fixed filter finds how
strong the noise around each voxel is (second differences along all three axes); the network is told so, and its answer
is taken in that unit.
{_compared(metrics, PSNR, AHEAD)}
## Where it fails

- White noise costs a little of what version 1.2.1 did: at Rician 3, 5, 9 and 15% its PSNR is 0.46, 0.25, 0.15 and
  0.12 dB lower, for 0.9 to 3.5 dB more against the best other method where a part of k-space is missing.
- The noise that the training scans had by themselves was truth in training, and of noise as weak it keeps the most. Of
  five test scans as they were taken it removes 0.05, 0.16, 0.34, 0.65 and 2.3% of white: a tenth of a clinical FLAIR's
  noise of 1.6%, and nearly all of the 2.6% of the stroke patient's T1.
- It is on a par with BM4D that is told the noise, not half a dB better, and worse on a scan whose own noise (2.6% of
  white) is nearly as strong as what was added: it takes both away, and the scan with its own noise counts as truth. On
  that T1 of the stroke patient it is 1.8 dB below BM4D at Rician 3%, 0.7 dB at 5%, level at 9% and above at 15%; on the
  other five scans it is 0.03 dB below to 0.7 dB above at every level. It has seen four people.
- The mean of eight mirrored copies gains 0.03 to 0.08 dB at Rician 5%, in eight times the time.
- What half a dB more would take is not known. To learn noise made in k-space (version 1.3.0) was one way; to correct
  the answer afterwards was another. Even the strength that is nearest to the truth, scan by scan, which nobody can
  know, would add 0.00 to 0.21 dB on four of the six scans at Rician 5%, whatever is kept of k-space; on the stroke
  patient's FLAIR 0.13 to 0.44 and on the T1 0.54 to 0.71, by leaving in the noise of their own that counts as truth
  (`python -m benchmarks.bundles.denoise_limits --data DIR --best-strength`). To tell the network the noise's strength,
  as BM4D is told it, was a third: -0.02 to +0.08 dB at Rician 5% of all of k-space; of 0.67 of it 0.2 to 0.5 dB less
  on the three clinical scans and 0.4 to 0.5 more on the stroke patient's, 0.1 in the mean (`--told`). Copies with
  exchanged axes beside the mirrored ones lose (tried on one scan).
- Zeros inside an image, as skull-stripping leaves them, cost something in what is left: at Rician 5% 0.05 to 0.4 dB, on
  five scans. Empty space about an image costs nothing, it is cropped away. `python -m benchmarks.bundles.denoise_limits
  --data DIR` measures these.
- At 15% small vessels and the texture of the cortex go; what is below the noise cannot come back.
- It has seen adult heads alone, at 0.5 to 1 mm in-plane and 1 to 4 mm slices. Other organs are untested.
- Motion, ghosts, spikes and bias fields are not noise, and stay.

{elsewhere(DENOISE_ELSEWHERE, metrics.get("familiar"))}
## Data and licence

{spec.data_source}. Weights: CC BY 4.0, with this attribution.
"""


def superres(spec: BundleSpec, metrics: Mapping[str, Any], methods: Mapping[str, str], use: str) -> str:
    """The card of `mr-superres`; says so where a number was not measured."""
    return f"""# mr-superres

{spec.description}

**Not for clinical use.** {use}

The answer lies on a finer grid over the same box: cubes of the image's shortest side, or of the size given with
`--spacing MM` (or `--spacing Z,Y,X`). An image without a voxel size is refused. Values keep the input's scale and
never leave its range. Averaged back to slices it need not equal the input: that would hold for slices of one profile
alone, and until version 1.3.1 it was forced to for the Gaussian's. Where the profile is known it is told by
`--slice-profile` (sinc, box or gaussian), or by the header of a DICOM series that says 3D, which is a sinc: then the
answer is changed as little as makes its slices the input's. In the tests, on a template whose slices are
twice as thick with a Gaussian or a sinc profile, or four times with a box, the mean difference is less than 1.5% of
white; for other slices no test bounds it. `--residual` gives what was changed of the best filter's answer,
`--uncertainty` the standard deviation over the eight flips of test-time augmentation.

## How good it is

{_measured(metrics, methods, "Slices so many times as thick as a voxel were taken of")}

{_aim(metrics, SUPERRES_AIM, "the cubic spline", without="6×")}
Until version 1.3.1 the aim was 2 dB, of Gaussian slices alone. Slices have a Gaussian profile, as wide at half its
maximum as they are apart; a box as wide; or a sinc of three lobes, as sampling in k-space leaves it. The network is
not told which, and the run only in the rows "told". The best filter is the best linear estimate for the Gaussian
(Gaussian process regression along the axis), which the network starts from whatever the profile is. PSNR in dB above
SSIM, mean ± SD over scans; white is the 99.9th percentile. Clinical scans were degraded along an in-plane axis, the
isotropic ones along their first. Five million voxels of the answer take 48 s and 1.3 GB on two cores (AMD EPYC).

{_examples(metrics)}
Reproduce with `napari-mamba evaluate mr-superres --data DIR`, DIR holding `native_mr` and `stroke_mr`.

## How it was made

{_made(spec, metrics)}{_trained(metrics, "mr-superres")}

As in SMORE, the in-plane detail of clinical scans stands for what their slices lack: pieces (16 a step, of 64x48x32
voxels; until version 1.1.0, 8 of 96x64x32) are blurred and sampled along an in-plane axis, by slices 1.5 to 8 voxels
apart, and interpolated by the best filter, as the bundle does it. Half of the slices are as thick as they are apart,
the others 0.65 to 1.35 of it, with gaps and overlaps. Since version 1.4.0 they have nine profiles (a third Gaussian,
the others box-shaped, with soft edges, cut-off sincs and what sinc pulses excite), one piece in four is coarser along
a second axis too, and the truth of one in four is smooth, so that what is smooth by itself is not sharpened. A second
input channel tells the network the slices' distance, without which it does no more than a faint sharpening. The scans'
own slices lie across, as they are or interpolated; one person's isotropic scans are degraded along any axis. A fifth
of the pieces get noise of up to 3% of white, since slices made of many voxels have less of it than a scanner's.
{_compared(metrics, GAIN, BEHIND)}
## Where it fails

- What a slice averages away is gone: lesions and vessels thinner than a slice are sharpened, not found. Beyond 4x the
  answer is a plausible guess, and smooth.
- Of Gaussian slices, two fifths (at 4x) to more than half (at 2x) of the gain over a spline are the best filter's,
  which needs no training. Of the other profiles all of it is the network's: there that filter is below the spline.
- Slices of a sinc profile gain least where it is not told, 1.0 to 1.1 dB, half a dB less than was aimed at.
  {_told(metrics)}
  To find the profile out from the image was tried, in vain: the spectra of slices of a box and of a sinc are alike.
  Told wrongly, the answer is worse than without. Gaussian slices gain 0.06 to 0.15 dB less than by version 1.3.1, which
  was made for them alone.
- The thickness of slices that a header gives is not told to the network; nor has it seen gaps or overlaps wider than a
  third of the slices' distance.
- A patient who moved between slices, or interleaved slices of unequal brightness, leave steps that it keeps: across the
  3 mm slices of a test person's T1W scan they show as stripes, more than under a spline.
- It has seen adult heads alone.

{elsewhere(SUPERRES_ELSEWHERE, metrics.get("familiar"))}
## Data and licence

{spec.data_source}. Weights: CC BY 4.0, with this attribution.
"""


def _told(metrics: Mapping[str, Any]) -> str:
    """What slices of a sinc gain where the run is told of it."""
    table = (metrics.get("held_out") or {}).get("table", {})
    gains = [row["gain"]["psnr"]["mean"] for name, row in table.items() if name.endswith(", told")]
    return f"Told, they gain {min(gains):.1f} to {max(gains):.1f} dB." if gains else "Told, it is not measured yet."


def _made(spec: BundleSpec, metrics: Mapping[str, Any]) -> str:
    return MADE.format(
        scans=SCANS[spec.network.arguments["scan"]], optimiser=describe_optimiser(metrics.get("trained"))
    )


def _measured(metrics: Mapping[str, Any], methods: Mapping[str, str], how: str) -> str:
    held_out = metrics.get("held_out")
    if not held_out:
        return "Not measured yet."
    known = {m: name for m, name in methods.items() if all(m in row for row in held_out["table"].values())}
    head = f"{how} {held_out['volumes']} scans of {held_out['people']} people that training never saw.\n\n"
    return head + report.markdown(held_out["table"], known)


def _aim(metrics: Mapping[str, Any], aim: float, other: str, without: str = "") -> str:
    """What was aimed at, and by how much it is missed."""
    held_out = metrics.get("held_out")
    if not held_out:
        return ""
    gains = [row["gain"]["psnr"]["mean"] for name, row in held_out["table"].items() if name != without]
    reached = f"it is {min(gains):+.2f} to {max(gains):+.2f} dB"
    missed = f", so {aim - min(gains):.2f} dB are missing at the worst" if min(gains) < aim else ""
    return f"The aim was a mean of {aim:g} dB more than {other} at every setting; {reached}{missed}.\n"


def _non_local_means(metrics: Mapping[str, Any]) -> str:
    """How it was called; tables made before it was called as its documentation says are without it."""
    held_out = metrics.get("held_out") or {"table": {}}
    if held_out["table"] and not all("nlm" in row for row in held_out["table"].values()):
        return (
            "Earlier versions of this card had a column of non-local means, from DIPY's blockwise method with the\n"
            "search window of its classic one, which costs it 1 to 5 dB: it is left away. `evaluate` measures both\n"
            "methods, each by its own defaults."
        )
    return "Non-local means is DIPY's, by its classic and its blockwise method, each with its own defaults."


def _examples(metrics: Mapping[str, Any]) -> str:
    return "![examples](examples.png)\n" if metrics.get("held_out") else ""


def _trained(metrics: Mapping[str, Any], name: str) -> str:
    trained = metrics.get("trained")
    began = " `--start BUNDLE` is where such a run begins." if trained and trained.get("start") else ""
    return f"{describe_training(trained, BATCH)}\n`napari-mamba train {name} --data DIR` makes it again.{began}"


def _compared(metrics: Mapping[str, Any], columns: dict[str, str], said: str) -> str:
    comparison = metrics.get("comparison")
    if not comparison:
        return ""
    table = comparison_table(comparison, VARIANTS, columns)
    return f"\nOn the validation person's three scans:\n\n{table}\n\n{textwrap.fill(said, 118)}\n"
