"""Ctrl-C: once is asked for, twice is at once; SIGTERM and SIGHUP ask, however often."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from ptune.base.interrupts import ignoring_ctrl_c, stoppable


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_any_signal_to_end_asks(number):
    before = signal.getsignal(number)
    with stoppable() as stopped:
        os.kill(os.getpid(), number)
        assert stopped()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped(), "what is being saved is not cut short"
    assert signal.getsignal(number) is before


def test_what_is_ignored_stays_ignored():
    """Under nohup a terminal that closes ends nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopped()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_nothing_is_changed():
    before, observed = signal.getsignal(signal.SIGINT), []

    def work():
        with stoppable() as stopped:
            observed.append((stopped(), signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert observed == [(False, True)]


def test_ctrl_c_reaches_neither_this_process_nor_those_that_it_starts():
    before = signal.getsignal(signal.SIGINT)
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    with ignoring_ctrl_c():
        press()
        started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert started.stdout == "True\n" and signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        press()
