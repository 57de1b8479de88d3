"""Start a server and keep it until it is told to end."""

from __future__ import annotations

import sys
from pathlib import Path

from napari_mamba.errors import InputError
from napari_mamba.server.settings import Settings


def default_folder(port: int) -> Path:
    """Where a server's files lie if nothing else is said: in the user's cache, one folder a port."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("napari-mamba", appauthor=False)) / "server" / str(port)


def serve(settings: Settings, certificate: Path | None = None, key: Path | None = None) -> int:
    """Serve until Ctrl-C; returns the exit code.

    Raises
    ------
    InputError
        If FastAPI is missing, a certificate cannot be read, or the address is taken.
    """
    try:
        import uvicorn

        from napari_mamba.server.app import make_app
        from napari_mamba.server.patience import protocol_with_patience
    except ImportError as error:
        raise InputError(
            "the server needs FastAPI and uvicorn: install them with pip install 'napari-mamba[server]', in a checkout "
            "with pip install '.[server]'"
        ) from error
    for path in (certificate, key):
        if path is not None and not path.is_file():
            raise InputError(f"{path} does not exist: name the certificate and its key as PEM files")
    config = uvicorn.Config(
        make_app(settings),
        http=protocol_with_patience(settings.stalled_seconds),
        host=settings.host,
        port=settings.port,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        log_level="warning",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    server = uvicorn.Server(config)
    scheme = "https" if certificate else "http"
    place = f"{scheme}://{settings.host}:{settings.port}"
    print(
        f"napari-mamba serves on {place}, Ctrl-C ends it",
        file=sys.stderr,
        flush=True,
    )
    try:
        server.run()
    except SystemExit as error:  # uvicorn's way to say that the address is taken
        raise InputError(f"the port {settings.port} cannot be used: choose another one with --port") from error
    return 0 if server.started else 2
