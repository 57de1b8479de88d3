"""Zarr stores at addresses: read over HTTP, and a network that fails told as that, not as damage of the file."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.volume import Volume

pytest.importorskip("obstore")
VALUES = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder, until the server's `answer` is another status than 200."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.server.answer == 200:
            super().do_GET()
        else:
            self.send_error(self.server.answer)


@pytest.fixture
def server(tmp_path):
    io.write(Volume(VALUES[None], np.eye(4)), tmp_path / "a.ome.zarr")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    server.answer, server.address = 200, f"http://127.0.0.1:{server.server_port}/a.ome.zarr"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_store_at_an_address_is_read(server):
    np.testing.assert_array_equal(io.read(server.address).data[0], VALUES)


@pytest.mark.parametrize("status", [403, 418])  # those that are tried again would take a second
def test_what_fails_while_chunks_are_read_is_the_network(server, status):
    volume = io.read(server.address)
    server.answer = status
    with pytest.raises(InputError, match=rf"^{server.address} cannot be reached \(.*{status}.*check the address"):
        np.asarray(volume.data)


def test_a_server_that_refuses_is_no_damaged_file(server):
    server.answer = 403
    with pytest.raises(InputError, match=rf"^{server.address} cannot be reached"):
        io.read(server.address)


def test_an_address_of_no_store_is_named_with_both_slashes():
    with pytest.raises(InputError, match=r"^https://example\.org/a\.nii\.gz is an address.*download it first"):
        io.read("https://example.org/a.nii.gz")
