"""Take the pictures of docs/images in a real napari window, by clicking what the documentation tells a reader to click.

    xvfb-run -a -s "-screen 0 1280x800x24" python docs/scripts/make_screenshots.py [SCENE...]

Without a scene, all of them, each in a process of its own. A scene that finds no such menu entry or button, or one that
is greyed out, ends with a sentence: then the text, or the window, is wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
SCENES = {
    "tutorial": "tutorial:follow",
    "denoise": "tasks:denoise",
    "sharpen": "tasks:sharpen",
    "classify": "tasks:judge",
    "surfaces": "tasks:surfaces",
    "look": "tasks:look",
    "segment": "tasks:brain",
    "radiotherapy": "radiotherapy:plan",
}


def scene(name: str) -> None:
    """Play one scene in this process."""
    from importlib import import_module

    module, function = SCENES[name].split(":")
    getattr(import_module(f"docs.scripts.pictures.{module}"), function)(IMAGES / "windows")


def main(names: list[str]) -> int:
    """Play scenes, each in a fresh process with fresh settings; returns the number of those that failed."""
    unknown = set(names) - set(SCENES)
    if unknown:
        raise SystemExit(f"there is no scene {', '.join(sorted(unknown))}: choose of {', '.join(SCENES)}")
    failed = 0
    for name in names or SCENES:
        with tempfile.TemporaryDirectory() as fresh:
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "NAPARI_CONFIG": f"{fresh}/napari.yaml",
                "XDG_DATA_HOME": fresh,
                "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
            }
            program = f"from docs.scripts.make_screenshots import scene; scene({name!r})"
            done = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT)
        print(f"{name}: {'ends with ' + str(done.returncode) if done.returncode else 'ok'}", flush=True)
        failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
