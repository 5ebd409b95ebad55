"""An exponential moving average of a model's weights: steadier than the weights of any one step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

WARM_UP = 10  # at step t no more than (1 + t) / (WARM_UP + t) is kept, so that the initial weights are soon forgotten


class WeightAverage:
    """The average of all that a model's state_dict holds; what is no floating-point number is taken as it last was.

    Args:
        decay: the share of the average that a step keeps.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay, self.num_steps = model, decay, 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights as they stand after a step."""
        decay = min(self.decay, (1 + self.num_steps) / (WARM_UP + self.num_steps))
        self.num_steps += 1
        latest = self.model.state_dict()
        averaged = [name for name, value in self.weights.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.weights[n] for n in averaged], [latest[n] for n in averaged], 1 - decay)
        for name in self.weights.keys() - set(averaged):
            self.weights[name].copy_(latest[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block, the model has the averaged weights."""
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.weights)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def state(self) -> dict:
        """For a checkpoint."""
        return {"weights": self.weights, "num_steps": self.num_steps}

    def restore(self, state: dict[str, Tensor | int]) -> None:
        """What `state` gave."""
        for name, value in self.weights.items():
            value.copy_(state["weights"][name])
        self.num_steps = state["num_steps"]
