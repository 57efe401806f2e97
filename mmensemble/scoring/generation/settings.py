"""What a model that writes was asked for. Imports numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmensemble.exceptions import ConfigurationError

__all__ = ["GenerationSettings"]


@dataclass(frozen=True)
class GenerationSettings:
    """What `generate` was asked for.

    Parameters
    ----------
    max_new_tokens : int, default=32
        Most tokens of a continuation, its end token included.
    num_return_sequences : int, default=1
        Continuations of each prompt.
    temperature : float, default=1.0
        The scores are divided by it before one is drawn; 0 takes the most probable token (greedy).
    top_k : int, default=None
        Draw among so many most probable tokens only.
    top_p : float, default=None
        Draw among the fewest most probable tokens whose probabilities add up to so much (Holtzman et al. 2020).
    num_beams : int, default=1
        Above 1: beam search, which draws nothing; so `temperature` must be 0 or 1, `top_k` and `top_p` None.
    seed : int, default=0
        Of all that is drawn.
    """

    __module__ = "mmensemble.scoring"
    max_new_tokens: int = 32
    num_return_sequences: int = 1
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    num_beams: int = 1
    seed: int = 0

    @classmethod
    def of(cls, *, random_state: Any = None, **settings: Any) -> GenerationSettings:
        """Check the arguments of `generate`.

        Parameters
        ----------
        random_state : int, numpy RandomState or Generator, default=None
            None draws differently each time.
        **settings
            The parameters of `GenerationSettings`, without `seed`.

        Raises
        ------
        ConfigurationError
            If one of them, or their combination, cannot work.
        """
        chosen = cls(**settings, seed=_seed(random_state))
        for name in ("max_new_tokens", "num_return_sequences", "top_k", "num_beams"):
            value = getattr(chosen, name)
            if name == "top_k" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ConfigurationError(f"{name} must be an integer of at least 1, not {value!r}")
        if not isinstance(chosen.temperature, (int, float, np.number)) or not 0 <= chosen.temperature < np.inf:
            raise ConfigurationError(f"temperature must be a number of at least 0, not {chosen.temperature!r}")
        if chosen.top_p is not None and not (
            isinstance(chosen.top_p, (int, float, np.number)) and 0 < chosen.top_p <= 1
        ):
            raise ConfigurationError(f"top_p must be a number in (0, 1], not {chosen.top_p!r}")
        if chosen.num_beams > 1:
            if chosen.temperature not in (0, 1) or chosen.top_k is not None or chosen.top_p is not None:
                raise ConfigurationError("beam search draws nothing: leave out temperature, top_k and top_p")
            if chosen.num_return_sequences > chosen.num_beams:
                raise ConfigurationError(
                    f"num_beams={chosen.num_beams} beams cannot give num_return_sequences="
                    f"{chosen.num_return_sequences} different sequences"
                )
        elif chosen.temperature == 0 and chosen.num_return_sequences > 1:
            raise ConfigurationError("temperature=0 has one most probable sequence: leave out num_return_sequences")
        return chosen

    def rows_at_once(self, batch_size: int) -> int:
        """Return how many rows are continued side by side, so that they are `batch_size` sequences at most."""
        return max(1, batch_size // max(self.num_beams, self.num_return_sequences))


def _seed(random_state: Any) -> int:
    if random_state is None:
        return int(np.random.default_rng().integers(2**63))
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool) and random_state >= 0:
        return int(random_state)
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**63))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    raise ConfigurationError(
        f"random_state must be an integer of at least 0, a numpy RandomState or Generator, or None, "
        f"not {random_state!r}"
    )
