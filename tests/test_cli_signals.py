"""Signals end a block as an exception does, wherever they come; tests of whole commands are with the commands."""

import ctypes
import os
import signal
import time

import pytest

from robopolicy.cli.signals import ended_by_signals, ended_once


class Argument:
    """What ctypes converts while a signal comes: it makes an error of its own of whatever the handler raises."""

    number = signal.SIGTERM

    @classmethod
    def from_param(cls, value):
        os.kill(os.getpid(), cls.number)
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s:
            time.sleep(0.001)  # the handler runs here
        raise AssertionError("no signal came")


def call(number):
    Argument.number = number
    function = ctypes.CDLL(None).labs
    function.argtypes = [Argument]
    function(1)


@pytest.mark.parametrize("block", [ended_once, ended_by_signals])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_within_ctypes_is_itself(block, number):
    with pytest.raises(SystemExit) as ended, block():
        call(number)
    assert ended.value.code == 128 + number


@pytest.mark.parametrize("block", [ended_once, ended_by_signals])
def test_so_is_the_terminals(block):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt), block():
            call(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("block", [ended_once, ended_by_signals])
def test_another_error_of_ctypes_stays_one(block):
    function = ctypes.CDLL(None).strlen
    function.argtypes = [ctypes.c_char_p]
    with pytest.raises(ctypes.ArgumentError, match="argument 1: "), block():
        function(1.5)
