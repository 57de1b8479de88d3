"""Runs on a server by the program's own client: the same events and the same result as here."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from engine_fakes import drained

from napari_mamba import bundles, engine, io
from napari_mamba.engine import RunOptions
from napari_mamba.errors import InputError, RunError
from napari_mamba.server.client import remote
from napari_mamba.server.client.connection import Connection, checked_address, is_this_computer
from napari_mamba.server.client.known import VARIABLE, KnownServers, Server

TOKEN = "a-token-for-the-tests-only"


@pytest.fixture(scope="module")
def server(serve):
    return serve("--gone-after", 60, token=TOKEN)


def test_the_answer_is_the_one_that_this_computer_gives(server, tiny_bundle, volume):
    bundle = bundles.load(tiny_bundle)
    options = RunOptions(device="cpu", uncertainty=True)
    events, there = drained(remote.run(volume, bundle, options, threading.Event(), server.address, TOKEN))
    here = engine.run_to_end(volume, bundle, options)
    np.testing.assert_array_equal(there.labels.data, here.labels.data)
    np.testing.assert_array_equal(there.labels.affine, volume.affine)
    assert there.labels.data.dtype == here.labels.data.dtype
    np.testing.assert_allclose(there.extra["uncertainty"].data, here.extra["uncertainty"].data, atol=1e-5)
    assert [(row.name, row.voxels) for row in there.table] == [(row.name, row.voxels) for row in here.table]
    assert there.table[0].mean_intensities == pytest.approx(here.table[0].mean_intensities)
    assert there.provenance["server"] == server.address
    stages = [event.stage for event in events]
    assert stages[0] == "sending"
    assert [one for one in dict.fromkeys(stages) if one in ("sending", "waiting", "network", "fetching")] == [
        "sending",
        "waiting",
        "network",
        "fetching",
    ]
    assert not server.left(), "the server deleted all of it"


def test_nothing_that_names_the_image_is_sent(tiny_bundle, volume):
    named = replace(volume, name="Doe^Jane", header={"PatientName": "Doe^Jane"})
    assert "Doe" not in str(remote.request_of(named, bundles.load(tiny_bundle), RunOptions()))


def test_a_header_with_a_name_stays_here(server, tiny_bundle, volume, monkeypatch):
    sent = []
    upload = Connection.upload
    monkeypatch.setattr(
        Connection, "upload", lambda self, *where: (sent.append(where[-1].read_bytes()), upload(self, *where))[1]
    )
    named = replace(volume, name="Doe^Jane", channel_names=("Doe^Jane T1",))
    drained(remote.run(named, bundles.load(tiny_bundle), RunOptions(), threading.Event(), server.address, TOKEN))
    assert sent
    assert b"Doe" not in sent[0]


def test_cancelling_ends_the_run_here_and_there_before_it_is_done(server, tiny_bundle, sample_data):
    cancel = threading.Event()
    head = io.read(sample_data / "icbm2009a_t1.nii.gz")
    events = remote.run(head, bundles.load(tiny_bundle), RunOptions(), cancel, server.address, TOKEN)
    for event in events:
        if event.stage == "network":
            break
    cancel.set()
    told, result = drained(events)
    assert result.cancelled
    assert not [event for event in told if event.stage == "network" and event.done == event.total]
    for _ in range(1200):
        if not server.left():
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the run was not deleted on the server")


def test_the_second_of_two_is_told_its_place(server, tiny_bundle, volume, sample_data):
    bundle = bundles.load(tiny_bundle)
    cancel = threading.Event()
    head = io.read(sample_data / "icbm2009a_t1.nii.gz")
    first = remote.run(head, bundle, RunOptions(), cancel, server.address, TOKEN)
    next(event for event in first if event.stage == "network")
    second = remote.run(volume, bundle, RunOptions(), threading.Event(), server.address, TOKEN)
    assert next(event for event in second if event.stage == "waiting").message == "1 run before this one"
    cancel.set()
    drained(first)
    _, result = drained(second)
    assert result.labels is not None


@pytest.mark.parametrize(
    ("token", "bundle", "said"),
    [("wrong-token-wrong-token", "tiny", "token"), (TOKEN, "another", "this server has no bundle another")],
)
def test_what_the_server_refuses_is_its_sentence(server, tiny_bundle, volume, token, bundle, said):
    asked = replace(bundles.load(tiny_bundle), name=bundle)
    with pytest.raises(RunError, match=said):
        drained(remote.run(volume, asked, RunOptions(), threading.Event(), server.address, token))


def test_a_server_that_is_not_there_is_a_sentence(tiny_bundle, volume):
    with pytest.raises(RunError, match="cannot be reached: check the address"):
        drained(remote.run(volume, bundles.load(tiny_bundle), RunOptions(), threading.Event(), "http://127.0.0.1:9"))


def test_nan_a_region_and_batches_are_answered_there_as_here(server, tiny_bundle, volume):
    data = np.array(volume.data)
    data[0, 3, 4, 5] = np.nan
    holed = volume.with_data(data, volume.channel_names)
    ends = np.sort([(volume.affine @ [*index, 1])[:3] for index in ((1, 2, 3), (9, 9, 9))], axis=0)
    options = RunOptions(device="cpu", batch_size=2, replace_nonfinite=-1.5, region=tuple(ends.ravel()))
    bundle = bundles.load(tiny_bundle)
    _, there = drained(remote.run(holed, bundle, options, threading.Event(), server.address, TOKEN))
    np.testing.assert_array_equal(there.labels.data, engine.run_to_end(holed, bundle, options).labels.data)
    assert there.provenance["options"]["replace_nonfinite"] == -1.5


def test_of_a_row_the_columns_of_the_model_are_sent_and_come_to_the_run(volume, tmp_path):
    from napari_mamba.bundles import Column
    from napari_mamba.cli.runs.cases import read_cases
    from napari_mamba.server.requests import RunRequest
    from napari_mamba.server.store import RunFiles

    columns = (Column("Age"), Column("sex", ("F", "M")))
    bundle = SimpleNamespace(name="of-people", task="classification", columns=columns)
    options = RunOptions(row={"name": "Doe^Jane", "age": "71", "Sex": "F"})
    body = remote.request_of(volume, bundle, options)
    assert body["cases"][0]["row"] == {"age": "71", "Sex": "F"}
    (case,) = read_cases(RunFiles(tmp_path, "1", RunRequest(**body)).write_cases())
    assert case.row == {"age": "71", "Sex": "F"}


def test_options_that_it_takes_are_written_as_it_takes_them(tiny_bundle, volume):
    from napari_mamba.server.requests import RunRequest

    options = RunOptions(
        tile=(16, 32, 32), overlap=0.25, mirror=True, precision="float32", probabilities=True, strength=0.5, seed=4,
        clip=False, deterministic=True, slice_profile="sinc",
    )  # fmt: skip
    body = remote.request_of(volume, bundles.load(tiny_bundle), options)
    words = RunRequest(**body).options.words("cpu")
    assert words == [
        "--device=cpu", "--precision=float32", "--tile=16,32,32", "--slice-profile=sinc", "--overlap=0.25",
        "--strength=50", "--mirror", "--deterministic", "--no-clip", "--seed=4",
    ]  # fmt: skip
    assert set(body["cases"][0]["outputs"]) == {"output", "probabilities"}


# ---- which servers are known


@pytest.mark.parametrize("text", ["", "gpu", "ftp://host", "http://user:word@host", "https://host:port", "http://"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InputError, match="no address of a server"):
        checked_address(text)


@pytest.mark.parametrize(
    ("address", "here"),
    [("http://localhost:1", True), ("http://[::1]:1", True), ("http://127.0.0.2", True), ("http://10.0.0.1", False)],
)
def test_this_computer_is_told_from_others(address, here):
    assert is_this_computer(address) is here
    assert Server(address).allowed is here
    assert Server(address, consent=True).allowed


def test_servers_are_remembered_without_their_tokens(tmp_path, monkeypatch):
    secret = tmp_path / "token"
    secret.write_text("very-secret-very-secret\n", encoding="utf-8")
    known = KnownServers(tmp_path / "config" / "servers.json")
    known.add(Server("https://gpu:8471", str(secret), True))
    known.add(Server("http://127.0.0.1:8471"))
    again = KnownServers(tmp_path / "config" / "servers.json")
    assert [one.address for one in again.servers] == ["https://gpu:8471", "http://127.0.0.1:8471"]
    assert again.find("https://gpu:8471").token() == "very-secret-very-secret"
    assert "very-secret" not in (tmp_path / "config" / "servers.json").read_text()
    monkeypatch.setenv(VARIABLE, " from-the-variable ")
    assert Server("https://gpu:8471").token() == "from-the-variable"
    with pytest.raises(InputError, match="token's file cannot be read"):
        Server("https://gpu:8471", str(tmp_path / "none")).token()
    again.forget("https://gpu:8471")
    assert known.find("https://gpu:8471") is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"address": "x", "token_file": "", "consent": true}]', "[[]]"])
def test_a_damaged_list_of_servers_counts_as_empty(tmp_path, text):
    (tmp_path / "servers.json").write_text(text)
    assert KnownServers(tmp_path / "servers.json").servers == []
