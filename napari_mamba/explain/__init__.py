"""How a model went through a volume: scan orders, hidden states, attention, relevance, receptive field.

No window is needed here: `ui.look_inside` draws what these functions return, `napari-mamba explain` writes it. Nothing
in this room changes what a network answers. What each map may be taken for is told in `docs/look_inside.md`; none is a
proof, and none is for clinical use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "recorded.subject": ("Subject", "Tile"),
    "recorded.opening": ("subject_of", "subject_of_network"),
    "recorded.recording": ("Layer", "LayerScan", "layers", "record"),
    "methods.order": ("compare_orders", "neighbour_distance", "order_on", "ranks"),
    "methods.states": ("influence", "memory_length", "principal_components", "run_states", "state_along", "state_maps"),
    "methods.attention": ("Attention", "attention_maps", "attention_matrix", "attention_of"),
    "methods.wider": ("gradient_weighted", "unified_map"),
    "methods.rollout": ("rollout",),
    "methods.attribution": ("Relevance", "picking", "relevance"),
    "methods.faithfulness": ("perturbation_curve",),
    "methods.field": ("FieldGraph", "layer_field", "reach", "receptive_field"),
    "methods.intervention": ("knockout",),
    "methods.published": ("clamped_matrix", "class_token_attribution", "class_token_raw", "class_token_rollout"),
    "recorded.tokens": ("unusual_tokens",),
    "methods.perturbation": ("occlusion",),
    "kinds": ("MAPS",),
    "maps": ("Explained", "explain"),
}
__all__ = [name for names in _HOMES.values() for name in names]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import, and a window asks for this room at its start.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
