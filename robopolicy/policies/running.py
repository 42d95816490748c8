"""What a new chunk has to agree with: what was done, and what is left of the chunk that is running."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robopolicy.policies.selectors import past_error


@dataclass(frozen=True)
class Running:
    """Rows as the network sees them, normalised; of what is not known, or of no use to the policy, there is nothing.

    Attributes:
        past: rows before the newest observation that a chunk also holds.
        done: (R, C) the last that were executed, R <= past.
        left: (R, C) what is left, row 0 belonging to the newest observation.
    """

    past: int
    done: Tensor | None
    left: Tensor | None

    @property
    def known(self) -> Tensor | None:
        """All past rows (past, C), or None where one is missing."""
        return self.done if self.done is not None and len(self.done) == self.past else None

    def rows(self) -> Tensor | None:
        """Return (past + H, C): what was done, the first of it repeated where it is not known, then what is left."""
        if self.left is None or self.past == 0:
            return self.left
        done = self.left[:1] if self.done is None else self.done
        return torch.cat([done[:1].expand(self.past - len(done), -1), done, self.left])

    def ahead(self, count: int) -> Tensor | None:
        """Return the first ``count`` rows of what is left: those that it really holds, not its last one repeated."""
        return self.left[:count] if self.left is not None and count else None

    def aux(self, chunk: Tensor) -> dict[str, np.ndarray]:
        """Return the past-token error of a chunk (past + H, C), if chunks have a past; NaN until all of it is known."""
        if self.past == 0:
            return {}
        error = np.nan if self.known is None else float(past_error(chunk[None], self.known))
        return {"past_error": np.asarray(error, np.float32)}
