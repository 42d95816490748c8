"""Fields of a configuration that must lie within a range: one line names the field, its value and the range."""

import math
from typing import Any

from robopolicy.errors import ContractError


def require_least(axis: str, config: Any, least: int, *names: str) -> None:
    """Check that fields are ``least`` or more; raises ContractError."""
    for name in names:
        value = getattr(config, name)
        if not value >= least:
            raise ContractError(f"{axis}: {name} is {value}; want at least {least}")


def require_positive(axis: str, config: Any, *names: str) -> None:
    """Check that fields are finite and above 0; raises ContractError."""
    for name in names:
        value = getattr(config, name)
        if not (value > 0 and math.isfinite(value)):
            raise ContractError(f"{axis}: {name} is {value}; want a finite number above 0")


def require_share(axis: str, config: Any, *names: str) -> None:
    """Check that fields are shares, 0 or more and below 1; raises ContractError."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise ContractError(f"{axis}: {name} is {value}; want 0 or more, and below 1")
