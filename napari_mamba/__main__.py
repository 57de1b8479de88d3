"""`python -m napari_mamba`: the command, for programs that cannot rely on console scripts."""

import sys

from napari_mamba.cli import main

if __name__ == "__main__":
    sys.exit(main())
