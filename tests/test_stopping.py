"""Ctrl-C: once is asked for, twice is at once."""
import os
import signal
import threading

import pytest

from ptune.stopping import stoppable


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_once_is_told_and_twice_stops():
    before = signal.getsignal(signal.SIGINT)
    with stoppable() as stopped:
        assert not stopped()
        press()
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            press()
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_nothing_is_changed():
    before, found = signal.getsignal(signal.SIGINT), []

    def work():
        with stoppable() as stopped:
            found.append((stopped(), signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, True)]
