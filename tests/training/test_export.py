"""What a card says of a training."""

from napari_mamba.training.weights.export import describe_optimiser, describe_training

FIRST = {"version": "1.0.0", "steps": 7934, "minutes": 17.6, "device": "NVIDIA H200"}


def test_a_training_from_random_weights():
    assert describe_training(None, "two windows") == ""
    assert describe_training({"steps": 10}, "12 samples") == "10 steps of 12 samples."


def test_what_it_began_from_counts_too():
    later = {"steps": 9000, "minutes": 12.5, "device": "NVIDIA H100", "processes": 2, "start": FIRST}
    told = " ".join(describe_training(later, "two windows").split())
    assert told == (
        "It began from version 1.0.0 (7934 steps of two windows in 17.6 minutes on NVIDIA H200); "
        "then 9000 steps of two windows on each of 2 GPUs in 12.5 minutes on NVIDIA H100."
    )


def test_a_beginning_has_its_own_beginning():
    second = {**FIRST, "version": "1.1.0", "start": {**FIRST, "version": "0.9.0", "steps": 5}}
    told = " ".join(describe_training({**FIRST, "start": second}, "two windows").split())
    assert told == (
        "It began from version 1.1.0 (7934 steps of two windows in 17.6 minutes on NVIDIA H200), which began from "
        "version 0.9.0 (5 steps of two windows in 17.6 minutes on NVIDIA H200); then 7934 steps of two windows in 17.6 "
        "minutes on NVIDIA H200."
    )


def test_the_optimiser_of_each_run_is_told():
    trained = {"steps": 9, "minutes": 2.0, "device": "NVIDIA H200", "optimiser": "muon", "learning_rate": 0.004}
    told = describe_training(trained, "two windows")
    assert told == "9 steps of two windows in 2.0 minutes on NVIDIA H200 by Muon, rate 0.004."
    assert describe_optimiser(trained) == "Muon"
    assert describe_optimiser({**trained, "start": {"version": "1.1.0", "start": FIRST}}) == "AdamW, then Muon"
    assert describe_optimiser(None) == "AdamW"


def test_the_runs_of_an_ensembles_members_are_told():
    member = {"steps": 9, "minutes": 2.0, "device": "NVIDIA H200", "optimiser": "muon", "learning_rate": 0.004}
    trained = {"members": [member, {**member, "steps": 8}]}
    assert " ".join(describe_training(trained, "two windows").split()) == (
        "2 members: 9 steps of two windows in 2.0 minutes on NVIDIA H200 by Muon, rate 0.004; "
        "8 steps of two windows in 2.0 minutes on NVIDIA H200 by Muon, rate 0.004."
    )
    assert describe_optimiser(trained) == "Muon"
