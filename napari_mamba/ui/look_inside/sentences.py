"""What was found, in sentences."""

from __future__ import annotations

from typing import Any


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    text = text.strip()
    text = text[:1].upper() + text[1:] if text.split(" ", 1)[0].isalpha() else text
    return text if text.endswith((".", "!", "?")) else text + "."


NAMES = {"relevance": "relevance", "gradient": "gradient × input", "integrated": "integrated gradients"}


def facts_told(facts: dict[str, Any]) -> list[str]:
    """The numbers found, as sentences."""
    lines = []
    if "memory" in facts:
        m = facts["memory"]
        lines.append(
            f"Memory: half of the tokens are kept for more than {m['tokens_median']:.0f} tokens, "
            f"{m['mm_median']:.0f} mm as the crow flies."
        )
    if "field" in facts:
        last = facts["field"][-1]
        half, most = last["half_mm"], last["most_mm"]
        lines.append(f"Half of the receptive field lies within {half:.0f} mm, 95% within {most:.0f} mm.")
    for name in ("relevance", "gradient", "integrated"):
        if name in facts:
            f = facts[name]
            lines.append(
                f"{facts['explained'][:1].upper()}{facts['explained'][1:]}: answer {f['answer']:.3g}, the map's sum "
                f"{f['sum']:.3g}, biases {f['constants']:.3g}."
            )
    if "knockout" in facts:
        k = facts["knockout"]
        scans = "1 scan was cut" if k["cuts"] == 1 else f"{k['cuts']} scans were cut"
        lines.append(f"The answer goes from {k['answer']:.3g} to {k['after']:.3g} ({scans}).")
    if "faithfulness" in facts:
        best = min(facts["faithfulness"], key=lambda name: facts["faithfulness"][name]["deletion"])
        where = "image" if facts.get("tiles") else "tile"
        lines.append(f"By deletion, {NAMES[best]} is the most faithful map of this answer on this {where}.")
    if "unified" in facts and not facts["unified"]["norm"]:
        lines.append("No norm over channels stands right before this layer: the map has convolution and gate alone.")
    return lines
