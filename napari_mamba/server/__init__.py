"""`napari-mamba serve`: runs for other computers, over HTTP. docs/server.md describes it for clients.

FastAPI and uvicorn belong to the extra `server`; nothing outside of this room imports them, and nothing here imports
torch: each run is a child process of the command.
"""

from napari_mamba.server.settings import Settings

__all__ = ["Settings"]
