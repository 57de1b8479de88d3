"""`napari-mamba serve` over HTTP on the loopback, as docs/server.md promises it to clients."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pytest
import requests

from napari_mamba import io

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "slicer_extension" / "MambaImaging"))

TOKEN = "a-token-for-the-tests-only"
REQUEST = {"bundle": "tiny", "cases": [{"name": "one", "inputs": [".nii.gz"], "outputs": {"output": ".seg.nrrd"}}]}


@pytest.fixture(scope="module")
def server(serve):
    return serve("--gone-after", 60, token=TOKEN)


def create(server, request=None):
    answer = server.ask("POST", "/v1/runs", json=request or REQUEST)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def events(server, run, after=0, stop=lambda event: False):
    """All events of a run, read as a browser would read them."""
    found = []
    headers = {"Last-Event-ID": str(after)}
    with server.ask("GET", f"/v1/runs/{run}/events", headers=headers, stream=True) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        number = 0
        for line in answer.iter_lines():
            if line.startswith(b"id:"):
                number = int(line[3:])
            if line.startswith(b"data:"):
                found.append((number, json.loads(line[5:])))
                if stop(found[-1][1]):
                    break
    return found


def send(server, run, image, case=0, channel=0):
    answer = server.ask("PUT", f"/v1/runs/{run}/inputs/{case}/{channel}", data=image.read_bytes())
    assert answer.status_code == 201, answer.text


@pytest.fixture
def image(tmp_path, volume):
    return io.write(volume, tmp_path / "block.nii.gz")


def test_a_run_from_upload_to_download(server, image, volume, tmp_path):
    run = create(server)
    assert server.ask("POST", f"/v1/runs/{run}/start").status_code == 409, "nothing was uploaded yet"
    send(server, run, image)
    assert server.ask("POST", f"/v1/runs/{run}/start").json() == {"place": 0}
    told = [event for _, event in events(server, run)]
    kinds = [event["event"] for event in told]
    assert kinds[0] == "queued"
    assert kinds[-1] == "end"
    (result,) = [event for event in told if event["event"] == "result"]
    assert result["outputs"] == {"labels": "output"}
    assert str(server.folder) not in json.dumps(told), "no path of the server is told"
    labels = tmp_path / "labels.seg.nrrd"
    labels.write_bytes(server.ask("GET", f"/v1/runs/{run}/outputs/0/output").content)
    back = io.read(labels)
    assert np.allclose(back.affine, volume.affine, atol=1e-4)
    assert sum(row["voxels"] for row in result["table"]) == np.count_nonzero(back.data)
    assert server.ask("DELETE", f"/v1/runs/{run}").status_code == 204
    assert not server.left()
    assert server.ask("GET", f"/v1/runs/{run}/events").status_code == 404


def test_events_are_resumed_where_they_broke_off(server, image):
    run = create(server)
    send(server, run, image)
    server.ask("POST", f"/v1/runs/{run}/start")
    first = events(server, run, stop=lambda event: event.get("stage") == "loading")
    rest = events(server, run, after=first[-1][0])
    numbers = [number for number, _ in first + rest]
    assert numbers == sorted(set(numbers))
    assert [event["event"] for _, event in rest][-2:] == ["result", "end"]
    again = events(server, run)
    assert [one for one in again if one[1]["event"] == "result"] == [one for one in rest if one[1]["event"] == "result"]
    server.ask("DELETE", f"/v1/runs/{run}")


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", "ä"])
def test_without_the_token_nothing_is_told(server, token):
    for method, path in [("GET", "/v1/models"), ("POST", "/v1/runs"), ("GET", "/v1/nothing"), ("GET", "/openapi.json")]:
        headers = {"Authorization": f"Bearer {token}".encode()} if token else {}
        answer = server.ask(method, path, token="", headers=headers, json=REQUEST)
        assert answer.status_code == 401
        assert "tiny" not in answer.text
    assert server.ask("GET", "/healthz", token="").json()["service"] == "napari-mamba"


def test_web_pages_and_other_names_are_refused(serve):
    open_server = serve()
    assert open_server.ask("GET", "/v1/models").ok
    assert open_server.ask("GET", "/v1/models", headers={"Origin": "https://example.org"}).status_code == 403
    assert open_server.ask("GET", "/v1/models", headers={"Host": "example.org"}).status_code == 403


@pytest.mark.parametrize(
    "request_",
    [
        {**REQUEST, "bundle": "../tiny"},
        {**REQUEST, "bundle": "unknown"},
        {**REQUEST, "cases": []},
        {**REQUEST, "cases": [{"inputs": ["/etc/passwd"], "outputs": {}}]},
        {**REQUEST, "cases": [{"inputs": [".nii.gz"], "outputs": {"../../x": ".nrrd"}}]},
        {**REQUEST, "cases": [{"inputs": [".nii.gz"], "outputs": {"output": "/x.nrrd"}}]},
        {**REQUEST, "options": {"device": "cpu --overwrite"}},
        {**REQUEST, "options": {"overwrite": True}},
    ],
)
def test_what_is_not_allowed_is_refused(server, request_):
    assert server.ask("POST", "/v1/runs", json=request_).status_code in (404, 422)
    assert not server.left()


@pytest.mark.parametrize(
    "body",
    [
        b"[",
        b"[]",
        b'{"bundle": 1e400}',
        b'{"bundle": "\\ud83d"}',
        b'{"bundle": "\xed\xa0\xbd"}',
        b'{"bundle": "tiny", "cases": [], "options": {"\\ud83d' + b"x" * 9999 + b'": 1}}',
    ],
)
def test_what_cannot_be_understood_is_told_in_a_sentence_without_what_was_sent(server, body):
    answer = server.ask("POST", "/v1/runs", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("the request is wrong")
    assert len(answer.content) < 400
    assert answer.json()["detail"].isprintable()


def test_no_name_of_a_client_becomes_a_path(server, image):
    name = "../../../tmp/evil\x00\n"
    run = create(server, {**REQUEST, "cases": [{**REQUEST["cases"][0], "name": name}]})
    send(server, run, image)
    for path in ("inputs/0/-1", "inputs/-1/0", "inputs/0/7", "inputs/..%2f0/0"):
        assert server.ask("PUT", f"/v1/runs/{run}/{path}", data=b"x").status_code in (404, 422)
    for path in ("0/cases.json", "0/..%2fcases.json", "0/output"):
        assert server.ask("GET", f"/v1/runs/{run}/outputs/{path}").status_code == 404
    assert {path.name for path in server.left()} == {"0-0.nii.gz"}
    server.ask("DELETE", f"/v1/runs/{run}")


def test_uploads_have_limits(serve, image):
    small = serve("--largest-upload", 0.001, token=TOKEN)
    run = create(small)
    path = f"/v1/runs/{run}/inputs/0/0"
    assert small.ask("PUT", path, data=bytes(3 << 20)).status_code == 413
    told = small.ask("PUT", path, data=iter([bytes(1 << 19)] * 6))
    assert told.status_code == 413, "a body that does not say how long it is"
    assert not small.left()
    assert small.ask("POST", "/v1/runs", data=bytes(2 << 20)).status_code == 413
    send(small, run, image)


def test_a_broken_upload_leaves_nothing(server, image):
    run = create(server)
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        head = f"PUT /v1/runs/{run}/inputs/0/0 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
        raw.sendall((head + "Content-Length: 100000\r\n\r\n").encode() + bytes(5000))
        time.sleep(0.3)
    deadline = time.monotonic() + 60
    while server.left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not server.left()
    assert server.ask("POST", f"/v1/runs/{run}/start").status_code == 409
    send(server, run, image)
    server.ask("DELETE", f"/v1/runs/{run}")


def test_a_damaged_image_is_told_and_its_files_go(server):
    run = create(server)
    server.ask("PUT", f"/v1/runs/{run}/inputs/0/0", data=b"no image")
    server.ask("POST", f"/v1/runs/{run}/start")
    told = [event for _, event in events(server, run)]
    (error,) = [event for event in told if event["event"] == "error"]
    assert error["kind"] == "input"
    assert str(server.folder) not in error["message"]
    assert not [path for path in server.left() if path.suffix != ".json"]
    server.ask("DELETE", f"/v1/runs/{run}")


def test_cancelling_ends_the_process(server, sample_data):
    run = create(server)
    send(server, run, sample_data / "icbm2009a_t1.nii.gz")
    server.ask("POST", f"/v1/runs/{run}/start")
    events(server, run, stop=lambda event: event.get("stage") == "network")
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert children
    assert server.ask("POST", f"/v1/runs/{run}/cancel").status_code == 202
    told = [event for _, event in events(server, run)]
    tiles = [event for event in told if event.get("stage") == "network"]
    assert not [event for event in tiles if event["done"] == event["total"]], "the run went on to its end"
    assert told[-2] == {"version": 2, "event": "result", "cancelled": True, "outputs": {}}
    psutil.wait_procs(children, 60)
    assert not [child for child in children if child.is_running() and child.status() != "zombie"]
    server.ask("DELETE", f"/v1/runs/{run}")
    assert not server.left()


def test_three_clients_wait_for_one_device_and_all_are_served(server, image):
    def one(_):
        run = create(server)
        send(server, run, image)
        place = server.ask("POST", f"/v1/runs/{run}/start").json()["place"]
        told = [event for _, event in events(server, run)]
        server.ask("DELETE", f"/v1/runs/{run}")
        return place, told

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(one, range(3)))
    assert sorted(place for place, _ in found) == [0, 1, 2]
    for place, told in found:
        places = [event["place"] for event in told if event["event"] == "queued"]
        assert places[0] == place
        assert places == sorted(places, reverse=True), "the place only falls"
        assert told[-1] == {"version": 2, "event": "end", "done": 1, "failed": 0, "cancelled": 0}
    assert not server.left()


def test_a_run_whose_client_is_gone_ends(serve, sample_data):
    server = serve("--gone-after", 2, token=TOKEN)
    run = create(server)
    send(server, run, sample_data / "icbm2009a_t1.nii.gz")
    server.ask("POST", f"/v1/runs/{run}/start")
    events(server, run, stop=lambda event: event.get("stage") == "network")  # and away
    deadline = time.monotonic() + 60
    while (server.left() or psutil.Process(server.process.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not server.left()
    assert not psutil.Process(server.process.pid).children()


def test_a_server_killed_in_mid_run_leaves_nothing_behind(serve, sample_data, image):
    first = serve(token=TOKEN)
    run = create(first)
    send(first, run, sample_data / "icbm2009a_t1.nii.gz")
    first.ask("POST", f"/v1/runs/{run}/start")
    events(first, run, stop=lambda event: event.get("stage") == "network")
    children = psutil.Process(first.process.pid).children(recursive=True)
    first.kill()
    psutil.wait_procs(children, 20)
    assert not [child for child in children if child.is_running()], "its runs end when nobody reads their events"
    assert first.left()
    second = serve(token=TOKEN, folder=first.folder)
    assert not second.left()
    assert second.ask("GET", f"/v1/runs/{run}/events").status_code == 404


def test_an_open_address_needs_a_token(serve, tmp_path):
    from napari_mamba.errors import InputError
    from napari_mamba.server.settings import Settings, read_token

    with pytest.raises(InputError, match="token"):
        Settings(host="0.0.0.0")
    with pytest.raises(InputError, match="too short"):
        Settings(token="short")
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert Settings(host="0.0.0.0", token=read_token(file)).token == TOKEN
    with pytest.raises(InputError, match="cannot be read"):
        read_token(tmp_path / "none")


def test_memory_of_a_large_upload_stays_small_on_both_sides(server, tmp_path):
    """Sparse 300 MB; benchmarks/server/memory.py sends 1 GB."""
    from MambaImagingLib.compute.client import Client

    large = tmp_path / "large.nii.gz"
    with open(large, "wb") as file:
        file.truncate(300 << 20)
    run = create(server)
    process, peak, done = psutil.Process(server.process.pid), [0], threading.Event()
    mine, own = psutil.Process(), [0]

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)
            own[0] = max(own[0], mine.memory_info().rss)

    before = mine.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    Client(server.address, TOKEN).upload(run, 0, 0, large)
    done.set()
    watcher.join()
    assert (server.folder / f"run-{run}" / "0-0.nii.gz").stat().st_size == 300 << 20
    assert peak[0] < 200e6
    assert own[0] - before < 60e6
    server.ask("DELETE", f"/v1/runs/{run}")


def test_the_extensions_client_brings_labels_back(server, image, volume, tmp_path):
    from MambaImagingLib.compute.jobs import Case, Job, Options
    from MambaImagingLib.compute.remote import RemotePlace

    place = RemotePlace(server.address, TOKEN)
    for question, wanted in ((place.ask_version(), "."), (place.ask_devices(), ["cpu"])):
        answer = wait(question.poll)
        assert not answer.error
        assert answer.value == wanted or wanted in answer.value
    found = wait(place.ask_bundles().poll)
    assert "tiny" in {bundle.name for bundle in found.value}
    refused = wait(RemotePlace(server.address, "wrong").ask_bundles().poll)
    assert "token" in refused.error
    cases = tuple(
        Case(f"näme {i}", (image,), {"output": tmp_path / f"{i}.seg.nrrd"}, region)
        for i, region in enumerate([None, None])
    )
    runner = place.runner()
    runner.start(Job("tiny", cases, Options(device="cpu"), tmp_path))
    outcome = wait(runner.poll)
    assert (outcome.error, outcome.cancelled, len(outcome.done)) == ("", False, 2)
    assert [case.name for case in outcome.done] == ["näme 0", "näme 1"]
    for case in outcome.done:
        assert np.allclose(io.read(case.result["outputs"]["labels"]).affine, volume.affine, atol=1e-4)
    runner.stop()
    wait(lambda: not server.left() or None)


def test_the_extensions_client_cancels_before_the_run_is_done(server, sample_data, tmp_path):
    from MambaImagingLib.compute.jobs import Case, Job, Options
    from MambaImagingLib.compute.remote import RemoteRunner

    runner = RemoteRunner(server.address, TOKEN)
    case = Case("head", (sample_data / "icbm2009a_t1.nii.gz",), {"output": tmp_path / "l.seg.nrrd"})
    runner.start(Job("tiny", (case,), Options(device="cpu"), tmp_path))
    wait(lambda: runner.poll() or (runner.follower.stage == "network" or None))
    runner.cancel()
    outcome = wait(runner.poll)
    assert outcome.cancelled
    wait(lambda: not server.left() or None)
    assert not (tmp_path / "l.seg.nrrd").exists()


def test_a_look_inside_over_http(server, image, volume, tmp_path):
    request = {"bundle": "tiny", "cases": [{"inputs": [".nii.gz"]}], "explain": {"what": ["order", "attention"]}}
    run = create(server, request)
    send(server, run, image)
    server.ask("POST", f"/v1/runs/{run}/start")
    told = [event for _, event in events(server, run)]
    assert told[-1]["event"] == "result"
    assert str(server.folder) not in json.dumps(told), "no path of the server is told"
    maps = {event["name"]: event for event in told if event["event"] == "map"}
    assert {"order 1", "path 1", "attention drawn"} <= set(maps)
    path = tmp_path / "map.nii.gz"
    path.write_bytes(server.ask("GET", f"/v1/runs/{run}/maps/{maps['order 1']['number']}").content)
    assert np.allclose(io.read(path).affine, volume.affine, atol=1e-4)
    for number in ("-1", "99", "..%2f0-0.nii.gz"):
        assert server.ask("GET", f"/v1/runs/{run}/maps/{number}").status_code in (404, 422)
    server.ask("DELETE", f"/v1/runs/{run}")
    assert not server.left()


@pytest.mark.parametrize(
    "explain",
    [{"what": ["dreams"]}, {"layer": "a b;c"}, {"world": [1, 2]}, {"output": "/tmp"}, {"what": []}, {"member": 0}],
)
def test_a_look_inside_asks_for_listed_things_alone(server, explain):
    request = {"bundle": "tiny", "cases": [{"inputs": [".nii.gz"]}], "explain": explain}
    assert server.ask("POST", "/v1/runs", json=request).status_code == 422
    two = {**request, "cases": request["cases"] * 2, "explain": {}}
    assert server.ask("POST", "/v1/runs", json=two).status_code == 422
    assert not server.left()


def test_the_extensions_client_looks_inside(server, image, volume, tmp_path):
    from MambaImagingLib.compute.jobs import Options
    from MambaImagingLib.compute.look import Look, LookJob
    from MambaImagingLib.compute.remote import RemotePlace

    def outcome_of(look):
        runner = RemotePlace(server.address, TOKEN).runner()
        runner.start(LookJob("tiny", (image,), look, Options(device="cpu"), tmp_path))
        outcome = wait(runner.poll)
        runner.stop()
        assert not outcome.error, outcome
        return outcome

    listed = outcome_of(Look(list_only=True)).listed
    layer = listed["layers"][0]["name"]
    x, y, z = (volume.affine @ [6, 9, 8, 1])[:3]
    outcome = outcome_of(Look(("state",), world=(x, y, z), layer=layer))
    (case,) = outcome.done
    assert case.result["facts"]["voxel"] == [6, 9, 8]
    assert case.result["facts"]["layer"] == layer
    (state,) = [event for event in outcome.maps if event["name"] == "state"]
    assert io.read(state["path"]).shape == volume.shape
    wrong = RemotePlace(server.address, TOKEN).runner()
    wrong.start(LookJob("tiny", (image,), Look(layer="nothing"), Options(device="cpu"), tmp_path))
    assert "no scanning layer" in wait(wrong.poll).error
    wrong.stop()
    wait(lambda: not server.left() or None)


def test_a_server_that_is_not_there_is_told(tmp_path, image):
    from MambaImagingLib.compute.jobs import Case, Job, Options
    from MambaImagingLib.compute.remote import Consent, RemoteRunner, checked_address

    runner = RemoteRunner("http://127.0.0.1:9", "")
    runner.start(Job("tiny", (Case("x", (image,), {}),), Options(), tmp_path))
    assert "cannot be reached" in wait(runner.poll).error
    for text in ("ftp://host", "host:80", "http://user:secret@host", ""):
        with pytest.raises(ValueError, match="no address"):
            checked_address(text)
    asked = []
    consent = Consent(lambda question: asked.append(question) or True, kept := {})
    assert consent.given("http://127.0.0.1:8471")
    assert consent.given("http://far.example:8471")
    assert consent.given("http://far.example:8471")
    assert len(asked) == 1
    assert "not encrypted" in asked[0]
    assert kept == {"http://far.example:8471": True}
    assert not Consent(lambda question: False, {}).given("https://far.example")


def wait(poll, seconds=90):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = poll()
        if found is not None:
            return found
        time.sleep(0.02)
    raise AssertionError("waited too long")


def test_nibabel_reads_what_was_sent(image, volume):
    assert np.allclose(nibabel.load(image).affine[:, [2, 1, 0, 3]], volume.affine, atol=1e-4)


def test_certificates_are_checked(tmp_path, serve):
    assert requests.Session().verify is True
    from MambaImagingLib.compute.client import Client

    assert Client("https://127.0.0.1:1")._session.verify is True


def test_a_slow_upload_is_ended_and_deleting_meanwhile_is_told(tmp_path):
    """In this process, where time-outs can be short."""
    import asyncio

    from napari_mamba.server.app import _receive
    from napari_mamba.server.store import Upload

    class Slow:
        async def stream(self):
            yield b"x" * 10
            await asyncio.sleep(5)

    class Deleted:
        async def stream(self):
            yield b"x"
            for path in tmp_path.iterdir():
                path.unlink()

    from fastapi import HTTPException

    for request, status in ((Slow(), 408), (Deleted(), 409)):
        with pytest.raises(HTTPException) as told:
            asyncio.run(_receive(request, Upload(tmp_path / "0-0.nii", 100), 0.1))
        assert told.value.status_code == status
        assert not list(tmp_path.iterdir())
