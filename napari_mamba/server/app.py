"""The application: routes over runs and queues. docs/server.md says what a client sends and gets."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from napari_mamba import __version__
from napari_mamba.io.common.guard import shortened
from napari_mamba.server.queues import Queues
from napari_mamba.server.requests import RunRequest
from napari_mamba.server.runs import OVER, UPLOADING, ServerRun
from napari_mamba.server.security import Gate
from napari_mamba.server.settings import Settings
from napari_mamba.server.store import Full, RunFiles, Upload, prepare_folder

API = "/v1"


class Service:
    """The runs of a server and its queues."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.runs: dict[str, ServerRun] = {}
        self.creating = threading.Lock()
        self.queues = Queues(settings.queues)

    def run(self, identity: str) -> ServerRun:
        """A run by its id; 404 if there is none. The client has been seen."""
        found = self.runs.get(identity)
        if found is None:
            raise HTTPException(404, "there is no such run: it was deleted, or the server was started anew")
        found.seen = monotonic()
        return found

    def delete(self, run: ServerRun) -> None:
        """End and forget a run."""
        self.runs.pop(run.id, None)
        run.delete()
        self.queues.drop(run)

    async def watch(self) -> None:
        """End the runs whose client is gone."""
        while True:
            await asyncio.sleep(min(self.settings.gone_seconds / 4, 5.0))
            for run in list(self.runs.values()):
                if run.gone_for() > self.settings.gone_seconds:
                    self.delete(run)

    @asynccontextmanager
    async def life(self, app: FastAPI) -> AsyncIterator[None]:
        """From the server's start to its end."""
        prepare_folder(self.settings.folder)
        await self.queues.start()
        watch = asyncio.create_task(self.watch())
        try:
            yield
        finally:
            watch.cancel()
            for run in list(self.runs.values()):
                self.delete(run)
            await self.queues.stop()


def make_app(settings: Settings) -> FastAPI:
    """The application for one server."""
    service = Service(settings)
    app = FastAPI(title="napari-mamba", version=__version__, docs_url=None, redoc_url=None, lifespan=service.life)
    app.state.service = service
    app.add_middleware(Gate, settings=settings)
    app.add_exception_handler(RequestValidationError, _misunderstood)
    _add_facts(app, service)
    _add_runs(app, service)
    _add_files(app, service)
    return app


async def _misunderstood(_: Request, error: Exception) -> JSONResponse:
    """One sentence about the first thing that is wrong; FastAPI's own answer gives all that was sent back with it."""
    assert isinstance(error, RequestValidationError)
    wrong = error.errors()[0]
    place = ".".join(str(part) for part in wrong["loc"][1:])
    text = f"the request is wrong at {place}: {wrong['msg']}" if place else f"the request is wrong: {wrong['msg']}"
    return JSONResponse({"detail": shortened(text)}, 422)


def _add_facts(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def health() -> dict[str, str]:
        return {"service": "napari-mamba", "status": "ok", "version": __version__}

    @app.get(API + "/models")
    def models() -> list[dict[str, Any]]:
        from napari_mamba import bundles

        return [{**bundles.facts(bundle), "path": ""} for bundle in bundles.available()]

    @app.get(API + "/devices")
    async def devices() -> list[dict[str, str]]:
        return [{"device": name} for name in await service.queues.known_devices()]


def _add_runs(app: FastAPI, service: Service) -> None:
    @app.post(API + "/runs", status_code=201)
    def create(request: RunRequest) -> dict[str, str]:
        from napari_mamba import bundles

        if request.bundle not in {bundle.name for bundle in bundles.available()}:
            raise HTTPException(404, f"this server has no bundle {request.bundle}")
        identity = secrets.token_hex(16)
        with service.creating:  # several at once, each in a thread, keep the limit, too
            if len(service.runs) >= service.settings.most_runs:
                raise HTTPException(429, "this server has as many runs as it takes: try again later")
            try:
                files = RunFiles(service.settings.folder, identity, request, service.settings.largest_run)
            except OSError as error:
                raise HTTPException(507, f"the server cannot store a run ({error.strerror})") from error
            service.runs[identity] = ServerRun(identity, request, files, service.settings.scheduler)
        return {"id": identity}

    @app.post(API + "/runs/{identity}/start", status_code=202)
    async def start(identity: str) -> dict[str, int]:
        run = service.run(identity)
        if run.state != UPLOADING:
            raise HTTPException(409, "this run was started before")
        if run.uploading or (missing := run.files.missing()):
            raise HTTPException(409, f"channels are missing: {', '.join(missing[:5]) if not run.uploading else 'wait'}")
        try:
            return {"place": await service.queues.put(run)}
        except LookupError as error:
            raise HTTPException(422, str(error.args[0])) from error

    @app.get(API + "/runs/{identity}/events")
    async def events(
        identity: str, last_event_id: Annotated[str | None, Header()] = None, after: int = 0
    ) -> StreamingResponse:
        run = service.run(identity)
        begin = int(last_event_id) if last_event_id and last_event_id.isdigit() else after
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(run.events(begin), media_type="text/event-stream", headers=headers)

    @app.post(API + "/runs/{identity}/cancel", status_code=202)
    async def cancel(identity: str) -> dict[str, str]:
        run = service.run(identity)
        run.cancel()
        service.queues.drop(run)
        return {"state": run.state}

    @app.delete(API + "/runs/{identity}", status_code=204)
    async def delete(identity: str) -> None:
        service.delete(service.run(identity))


def _add_files(app: FastAPI, service: Service) -> None:
    @app.put(API + "/runs/{identity}/inputs/{case}/{channel}", status_code=201)
    async def upload(identity: str, case: int, channel: int, request: Request) -> dict[str, int]:
        run = service.run(identity)
        key = f"{case}/{channel}"
        try:
            path = run.files.input(case, channel)
        except LookupError:
            raise HTTPException(404, "this run has no such channel") from None
        if run.state != UPLOADING or key in run.uploading:
            raise HTTPException(409, "this channel cannot be uploaded now")
        limit = min(service.settings.largest_upload, service.settings.largest_run - run.files.bytes)
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise HTTPException(413, f"the file is larger than the {limit / 1e9:.1f} GB that this server takes")
        run.uploading.add(key)
        try:
            with run.watched():
                limit = service.settings.largest_upload
                upload = Upload(path, limit, run.files)
                size = await _receive(request, upload, service.settings.stalled_seconds)
        finally:
            run.uploading.discard(key)
        if announced.isdigit() and size != int(announced):
            path.unlink(missing_ok=True)
            run.files.give_back(size)
            raise HTTPException(400, "the upload broke off: send the file again")
        return {"bytes": size}

    @app.get(API + "/runs/{identity}/outputs/{case}/{name}")
    async def download(identity: str, case: int, name: str) -> FileResponse:
        run = service.run(identity)
        return _file(run, lambda: run.files.output(case, name))

    @app.get(API + "/runs/{identity}/maps/{number}")
    async def map_(identity: str, number: int) -> FileResponse:
        run = service.run(identity)
        return _file(run, lambda: run.files.map(number))


def _file(run: ServerRun, find: Callable[[], Path]) -> FileResponse:
    """A file that a run made; 404 where there is none, or not yet."""
    try:
        path = find()
    except LookupError:
        raise HTTPException(404, "this run has no such output") from None
    if run.state != OVER or not path.is_file():
        raise HTTPException(404, "this output is not there")
    return FileResponse(path, media_type="application/octet-stream")


async def _receive(request: Request, upload: Upload, stalled: float) -> int:
    """Write the body, a chunk at a time; returns its size."""
    from starlette.requests import ClientDisconnect

    chunks = request.stream().__aiter__()
    try:
        with upload:
            with suppress(StopAsyncIteration):
                while True:
                    upload.write(await asyncio.wait_for(chunks.__anext__(), stalled))
            return upload.size
    except Full as error:
        raise HTTPException(413 if "larger" in str(error) else 507, str(error)) from error
    except FileNotFoundError as error:
        raise HTTPException(409, "the run was deleted meanwhile") from error
    except TimeoutError as error:
        raise HTTPException(408, "the upload stood still for too long: send the file again") from error
    except OSError as error:
        raise HTTPException(507, f"the server cannot store the file ({error.strerror})") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the upload broke off: send the file again") from error
