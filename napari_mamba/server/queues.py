"""One queue a device: a run waits for its turn and is told its place."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import suppress

from napari_mamba.server.runs import OVER, WAITING, ServerRun


class Queues:
    """The queues of a server. `start` and `stop` belong to the application's life."""

    def __init__(self, devices: Sequence[str] = ()):
        self.devices = list(devices)
        self._waiting: dict[str, list[ServerRun]] = {}
        self._running: dict[str, ServerRun | None] = {}
        self._wake: dict[str, asyncio.Event] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._known = asyncio.Event()

    async def start(self) -> None:
        """Begin to look for devices (seconds: PyTorch is imported in a child process), then to work."""
        self._workers.append(asyncio.create_task(self._begin()))

    async def _begin(self) -> None:
        if not self.devices:
            self.devices = await _find_devices()
        for device in self.devices:
            self._waiting[device], self._running[device], self._wake[device] = [], None, asyncio.Event()
            self._workers.append(asyncio.create_task(self._work(device)))
        self._known.set()

    async def known_devices(self) -> list[str]:
        """Names of the devices, once they are known."""
        await self._known.wait()
        return list(self.devices)

    async def put(self, run: ServerRun) -> int:
        """Queue a run; returns how many are before it.

        Raises
        ------
        LookupError
            If the device that it asks for is not one of this server's.
        """
        await self._known.wait()
        run.device = self._choose(run.request.options.device)
        run.state = WAITING
        self._waiting[run.device].append(run)
        self._tell_places(run.device)
        self._wake[run.device].set()
        return self._length(run.device) - 1

    def _choose(self, asked: str) -> str:
        if asked == "cuda" and "cuda" not in self.devices:
            asked = next((name for name in self.devices if name.startswith("cuda")), asked)
        if asked != "auto":
            if asked not in self.devices:
                raise LookupError(f"this server has no device {asked}: choose one of {', '.join(self.devices)}")
            return asked
        fast = [name for name in self.devices if name != "cpu"] or self.devices
        return min(fast, key=self._length)

    def _length(self, device: str) -> int:
        return len(self._waiting[device]) + (self._running[device] is not None)

    def _tell_places(self, device: str) -> None:
        before = 1 if self._running[device] is not None else 0
        for place, run in enumerate(self._waiting[device]):
            run.tell("queued", place=place + before)

    async def _work(self, device: str) -> None:
        while True:
            self._wake[device].clear()
            while self._waiting[device]:
                run = self._waiting[device].pop(0)
                if run.state == OVER:
                    continue
                self._running[device] = run
                self._tell_places(device)
                try:
                    await run.compute()
                finally:
                    self._running[device] = None
            await self._wake[device].wait()

    def drop(self, run: ServerRun) -> None:
        """Take a run out of its queue, if it waits."""
        waiting = self._waiting.get(run.device, [])
        if run in waiting:
            waiting.remove(run)
            self._tell_places(run.device)

    async def stop(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.cancel()
        for worker in self._workers:
            with suppress(asyncio.CancelledError, Exception):
                await worker


async def _find_devices() -> list[str]:
    """What `napari-mamba devices --json` says, or the CPU."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "napari_mamba", "devices", "--json"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        out, _ = await process.communicate()
        return [str(one["device"]) for one in json.loads(out)] or ["cpu"]
    except (ValueError, KeyError, TypeError):
        return ["cpu"]
    finally:
        with suppress(ProcessLookupError):
            process.kill()
