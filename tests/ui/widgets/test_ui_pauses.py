"""What is switched for the window's sake is as before when nobody needs it any more."""

from __future__ import annotations

import gc
import sys
import weakref

from napari_mamba.ui.widgets.pauses import SHORT_S, NoFullCollections, short_turns


def test_python_gives_its_lock_away_sooner_until_the_last_thread_is_done():
    usual = sys.getswitchinterval()
    with short_turns():
        with short_turns():
            assert sys.getswitchinterval() <= SHORT_S * 1.01
        assert sys.getswitchinterval() <= SHORT_S * 1.01
    assert sys.getswitchinterval() == usual


def test_what_is_there_is_left_alone_until_the_last_one_is_off():
    first, second = NoFullCollections(), NoFullCollections()
    assert gc.get_freeze_count() == 0
    first.switch(True)
    assert gc.get_freeze_count() > 1000
    second.switch(True)
    first.switch(False)
    first.switch(False)
    assert gc.get_freeze_count() > 1000
    second.switch(False)
    assert gc.get_freeze_count() == 0


def test_what_comes_after_is_collected_all_the_same():
    class Node:
        pass

    steady = NoFullCollections()
    steady.switch(True)
    try:
        node = Node()
        node.itself = node
        gone = weakref.ref(node)
        del node
        gc.collect()
        assert gone() is None
    finally:
        steady.switch(False)
