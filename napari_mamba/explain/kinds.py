"""The maps by name: what each is called, what it says, and what it is of. Importing this costs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MapKind:
    """One kind of map: its title, what it says in a sentence, and whether it is of a voxel or a class."""

    title: str
    says: str
    of: str = "layer"  # "layer", "voxel" or "class"


MAPS: dict[str, MapKind] = {
    "order": MapKind("Scan order", "when the scan comes to each voxel"),
    "neighbours": MapKind("Neighbour distance", "how many steps lie between a voxel and those beside it"),
    "state": MapKind("State norm", "how much the hidden state holds when the scan passes a voxel"),
    "components": MapKind("State components", "the three directions in which the hidden state varies most, as colours"),
    "step_size": MapKind("Step size", "how much the layer lets in of each voxel"),
    "memory": MapKind("Memory length", "for how many tokens, and how far, the state keeps what it read"),
    "influence": MapKind("Influence on the states", "how much each token moves the states after it"),
    "tokens": MapKind("Token norm", "tokens of unusual norm in empty background are no sign of the image there"),
    "attention": MapKind("Attention", "what the voxel drew from, and what drew from it", "voxel"),
    "unified": MapKind("Unified attention", "the same, with convolution and gate", "voxel"),
    "rollout": MapKind("Attention rollout", "the same, multiplied over layers", "voxel"),
    "field": MapKind("Receptive field", "which voxels the answer at this voxel depends on", "voxel"),
    "relevance": MapKind("Relevance", "what each voxel adds to the answer (MambaLRP)", "class"),
    "gradient": MapKind("Gradient x input", "the same by the plain gradient", "class"),
    "integrated": MapKind("Integrated gradients", "the same by gradients from a black image on", "class"),
    "class_attention": MapKind("Class attention", "which tokens of the layer the answer draws on", "class"),
    "occlusion": MapKind("Occlusion", "how the answer falls where a block is covered", "class"),
    "knockout": MapKind("Knockout", "how the answer falls where a block passes nothing on in the scans", "class"),
    "faithfulness": MapKind("Faithfulness", "deletion and insertion curves: which map to believe", "class"),
}
BLOCKS = {2: 8, 3: 4}
"""Along each side of a tile, for occlusion and knockout: 64 passes."""
STATE_MAPS = {"state": "norm", "step_size": "step_size", "memory": "memory", "influence": "influence"}
