"""How images are sampled: scheduler, steps and guidance as one object, checked once, that travels
whole.

`generate.py`, the previews of a training and an export all draw with what conf/sampler says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

SAMPLERS = {
    "ddim": DDIMScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}
WHOLE = (0.0, 1.0)  # the interval of the steps in which guidance counts
GUIDES = ("prompt", "both")  # what guidance pushes towards


@dataclass(frozen=True)
class Sampler:
    """The settings of a drawing.

    Args:
        name: of SAMPLERS.
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
        known(self.name)
        for setting, value in (("steps", self.steps), ("reuse", self.reuse)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"sampler.{setting} is {value}; give a whole number of at least 1")
        if not _number(self.guidance):
            raise ValueError(f"sampler.guidance is {self.guidance}; give a number, such as 2.0")
        if self.guides not in GUIDES:
            raise ValueError(f"sampler.guides is {self.guides!r}; it takes {' or '.join(GUIDES)}")
        object.__setattr__(self, "interval", _shares(self.interval))

    def settings(self) -> dict[str, Any]:
        """What a set records beside name and steps: whatever is not usual; guidance stands in its
        plan."""
        return {
            **({"interval": list(self.interval)} if self.interval != WHOLE else {}),
            **({"guides": self.guides} if self.guides != "prompt" else {}),
            **({"reuse": self.reuse} if self.reuse > 1 else {}),
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
    return ends[0], ends[1]


def known(name: str) -> type[Any]:
    """The class of a scheduler by its name. Raises ValueError for another."""
    if name not in SAMPLERS:
        raise ValueError(f"sampler.name is {name!r}; it takes {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def scheduler(name: str, schedule: dict[str, Any]) -> Any:
    """A diffusers scheduler of the base's noise schedule."""
    return known(name).from_config({k: v for k, v in schedule.items() if not k.startswith("_")})
