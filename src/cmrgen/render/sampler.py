"""How images are sampled: scheduler, steps and guidance as one object, checked once, that travels
whole; and forwards that several steps share.

`generate.py`, the previews of a training and an export all draw with what conf/sampler says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor, nn

SAMPLERS: dict[str, type[Any]] = {
    "ddim": DDIMScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}
WHOLE = (0.0, 1.0)  # the interval of the steps in which guidance counts
GUIDES = ("prompt", "both")  # what guidance pushes towards
READY = nn.Identity()  # one for all, so that compiled networks know it again


@dataclass(frozen=True)
class Sampler:
    """The settings of a drawing.

    Args:
        name: of SAMPLERS, or of a subclass's own `solver`.
        steps: of the scheduler, for rows that have no number of their own.
        guidance: scale, for whoever has none per row.
        guides: towards the prompt, or both mask and prompt: then the prediction guided away from is
            the base's own, without ControlNet.
        interval: share of the steps, from the noisiest, in which guidance counts.
        reuse: steps that share one forward of the deep blocks.

    Raises ValueError naming the setting, its value and what it takes.
    """

    name: str = "unipc"
    steps: int = 8
    guidance: float = 2.0
    guides: str = "prompt"
    interval: Sequence[float] = WHOLE
    reuse: int = 1

    def __post_init__(self) -> None:
        self.solver()
        for setting, value in (("steps", self.steps), ("reuse", self.reuse)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"sampler.{setting} is {value}; give a whole number of at least 1")
        if not _number(self.guidance):
            raise ValueError(f"sampler.guidance is {self.guidance}; give a number, such as 2.0")
        if self.guides not in GUIDES:
            raise ValueError(f"sampler.guides is {self.guides!r}; it takes {' or '.join(GUIDES)}")
        object.__setattr__(self, "interval", _shares(self.interval))

    def solver(self) -> type[Any]:
        """The class of its diffusers scheduler, a deterministic one; a sampler of one's own, with a
        name of its own, overrides this. Raises ValueError for an unknown name."""
        if self.name not in SAMPLERS:
            raise ValueError(f"sampler.name is {self.name!r}; it takes {', '.join(SAMPLERS)}")
        return SAMPLERS[self.name]

    def scheduler(self, schedule: Mapping[str, Any]) -> Any:
        """Its diffusers scheduler, of a base's noise schedule."""
        known = {key: value for key, value in schedule.items() if not key.startswith("_")}
        return self.solver().from_config(known)

    def settings(self) -> dict[str, Any]:
        """What a set records of it; guidance stands in the plan, row by row."""
        return {
            "sampler": self.name,
            "scheduler": self.solver().__name__,
            "steps": self.steps,
            "interval": list(self.interval),
            "guides": self.guides,
            "reuse": self.reuse,
        }


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shares(interval: Any) -> tuple[float, float]:
    ends = (
        list(interval)
        if isinstance(interval, Sequence) and not isinstance(interval, str)
        else [interval]
    )
    if len(ends) != 2 or not all(map(_number, ends)) or not 0 <= ends[0] <= ends[1] <= 1:
        raise ValueError(
            f"sampler.interval is {interval}; give two shares of the steps, as [0, 1] or [0.2, 0.8]"
        )
    return float(ends[0]), float(ends[1])


@contextmanager
def embedded_once(controlnet: ControlNetModel, control: Tensor) -> Iterator[Tensor]:
    """The mask's embedding depends on neither time nor prompt: inside this block the network takes
    it ready-made."""
    embedding = controlnet.controlnet_cond_embedding
    controlnet.controlnet_cond_embedding = READY
    try:
        yield embedding(control)
    finally:
        controlnet.controlnet_cond_embedding = embedding


@contextmanager
def reused(unet: Any, controlnet: nn.Module, *, every: int) -> Iterator[Callable[[int], None]]:
    """Inside this block the ControlNet and the deep blocks of the U-Net run in every `every`-th
    step only.

    Between, their last output is used again (DeepCache, Ma 2024): the outermost blocks alone see x
    and time. Call what is yielded with the number of rows before each step; another number than
    before begins anew. Not for training.
    """
    deep = [controlnet, *unet.down_blocks[1:], unet.mid_block, *unet.up_blocks[:-1]]
    own = {network: vars(network).get("forward") for network in deep}
    known: dict[nn.Module, Any] = {}
    step = {"number": 0, "rows": -1}

    def begin(rows: int) -> None:
        if rows != step["rows"] or step["number"] == every:
            known.clear()
            step.update(number=0, rows=rows)
        step["number"] += 1

    def remembering(network: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def remembered(*args: Any, **kwargs: Any) -> Any:
            if network not in known:
                known[network] = forward(*args, **kwargs)
            return known[network]

        return remembered

    try:
        for network in deep:
            network.forward = remembering(network, network.forward)
        yield begin
    finally:
        for network in deep:
            if own[network] is None:
                vars(network).pop("forward", None)
            else:
                network.forward = own[network]
