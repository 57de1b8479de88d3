"""`python -m napari_mamba`: the command, for programs that cannot rely on console scripts."""

from napari_mamba.cli import command

if __name__ == "__main__":
    command()
