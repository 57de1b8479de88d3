"""Are the codes of the shipped bundles in 3D Slicer's own terminology lists?

    python check_terminology.py SLICER_REPOSITORY > terminology.txt

Needs napari-mamba and a clone of github.com/Slicer/Slicer with its tags. Output: one line a class; the exit code is 1
if a code or its meaning is not in the list, and not in `BEYOND` either. "no side in the list": Slicer's list offers no
laterality for that type, so the segment carries one more than the list has. A segment's entry holds its own words, so
that Slicer shows it whatever its lists have.
"""

from __future__ import annotations

import json
import subprocess
import sys

VERSIONS = ("v5.10.0", "v5.12.3")
LIST = "Modules/Loadable/Terminologies/Resources/SegmentationCategoryTypeModifier-DICOM-Master.json"

BEYOND = {("SCT", "74281007"): "Myocardium"}
"""SNOMED CT's "myocardium structure": none of Slicer's lists has the muscle of a heart."""


def types_of(repository: str, version: str) -> tuple[str, dict[tuple[str, str], tuple[str, set[str]]]]:
    """The list's name, and meaning and sides of each (scheme, code) among the anatomical structures."""
    text = subprocess.run(
        ["git", "--git-dir", repository, "show", f"{version}:{LIST}"], capture_output=True, text=True, check=True
    ).stdout
    content = json.loads(text)
    found = {}
    for category in content["SegmentationCodes"]["Category"]:
        if category["CodeValue"] == "123037004":
            for one in category["Type"]:
                sides = {modifier["CodeValue"] for modifier in one.get("Modifier", [])}
                found[one["CodingSchemeDesignator"], one["CodeValue"]] = (one["CodeMeaning"], sides)
    return content["SegmentationCategoryTypeContextName"], found


def main(repository: str) -> int:
    """See the module's docstring."""
    from napari_mamba import bundles
    from napari_mamba.io.labels.terminology import CONTEXT, terminology_entry

    wrong = 0
    for version in VERSIONS:
        name, types = types_of(repository, version)
        print(f"# {version}: {name}")
        wrong += name != CONTEXT
        for bundle in bundles.available():
            if bundle.task != "segmentation":
                continue
            for label in bundle.classes[1:]:
                _, _, kind, side, *_ = terminology_entry(label).split("~")
                scheme, code, meaning = kind.split("^")
                known, sides = types.get((scheme, code), ("", set()))
                told = "ok" if known == meaning else "NOT IN THE LIST"
                if not known and BEYOND.get((scheme, code)) == meaning:
                    told = "SNOMED CT's own, in none of Slicer's lists"
                wrong += told.startswith("NOT")
                if side != "^^" and side.split("^")[1] not in sides:
                    told += ", no side in the list"
                print(bundle.name, label.name, kind, side, told, sep="\t")
    print(f"# {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
