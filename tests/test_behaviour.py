import pytest

from robopolicy.behaviour import failure_of, mode_of, modes_of
from robopolicy.errors import ContractError


class Silent:
    pass


class Telling:
    modes = ("left", "right")

    def __init__(self, mode=None, failure=""):
        self._mode, self._failure = mode, failure

    def mode(self):
        return self._mode

    def failure(self):
        return self._failure


def test_a_world_that_says_nothing_has_no_modes_and_no_failures():
    assert modes_of(Silent()) == ()
    assert mode_of(Silent()) is None
    assert failure_of(Silent()) == ""


def test_a_world_that_says_something_is_believed():
    assert modes_of(Telling()) == ("left", "right")
    assert mode_of(Telling()) is None
    assert mode_of(Telling("right")) == "right"
    assert failure_of(Telling(failure="dropped")) == "dropped"


def test_a_mode_that_is_not_enumerated_is_an_error():
    with pytest.raises(ContractError, match="'up'; it enumerates left, right"):
        mode_of(Telling("up"))
