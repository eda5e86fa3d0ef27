"""How many images go through a large network together: one rule, by their pixels, and what happens
where that is too many.

A portion is cut from whatever a caller asks for, so batches of a plan, of a cache or of a sweep may
have any size. Figures of Stable Diffusion 2.1 beside each budget are computed
(docs/results/memory.md).
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor

from cmrstudy.memory import OutOfMemory, exhausted

ENCODED = 2**18  # pixels through the VAE's encoder: one image of 512 px, 0.63 GiB
DECODED = 2**18  # and its decoder: one image of 512 px, 0.75 GiB; larger portions are no faster
# through U-Net and ControlNet while a training's weights, gradients and moments stay
BESIDE_TRAINING = 2**18
# through them otherwise, for each 8 GB of a GPU: four images of 512 px, twice the rows with
# guidance
DRAWN = 2**20
CARD = 8 * 10**9  # bytes
# such cards that a CPU or another device counts as, whatever its memory: the same portions
# everywhere
OFF_GPU = 2
PROMPTS = 64  # through the text tower


def together(pixels: int, budget: int) -> int:
    """Images of `pixels` x `pixels` that fit a budget of pixels; at least one."""
    return max(1, budget // pixels**2)


def drawing_budget(device: torch.device) -> int:
    """Pixels that are drawn together on a device, by the size of a GPU's memory, not by what is
    free of it."""
    cards: float = OFF_GPU
    if device.type == "cuda":
        # a card of 8 GB reports a little less or more
        cards = max(1, round(torch.cuda.get_device_properties(device).total_memory / CARD))
    return int(DRAWN * cards)


class Portions:
    """Takes images through a network in portions; one that does not fit is halved, once and for
    all, with a sentence."""

    def __init__(self, stage: str, *, remedy: str) -> None:
        """stage: what is done, for messages. remedy: what takes less memory, where one image is too
        much."""
        self.stage, self.remedy = stage, remedy
        self.most: int | None = None  # images, once more have not fitted

    def run(
        self, forward: Callable[[slice], Tensor], count: int, *, together: int, device: torch.device
    ) -> Tensor:
        """`forward` of every slice of `count` images, at most `together` in each, joined.

        Raises OutOfMemory where one image is too much.
        """
        outputs, begin = list[Tensor](), 0
        while begin < count or not outputs:
            portion = slice(begin, min(count, begin + min(together, self.most or together)))
            output = self._fitting(forward, portion)
            # tried outside the handler, which would keep what the forward had made
            if output is None:
                self._halve(portion.stop - portion.start, device)
                continue
            outputs.append(output)
            begin = portion.stop
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    @staticmethod
    def _fitting(forward: Callable[[slice], Tensor], portion: slice) -> Tensor | None:
        try:
            return forward(portion)
        except Exception as error:
            if not exhausted(error):
                raise
        return None

    def _halve(self, size: int, device: torch.device) -> None:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if size <= 1:
            raise OutOfMemory(
                f"{self.stage}: out of memory with a single image on {device}. {self.remedy}; "
                "another program may hold a part of the memory (nvidia-smi shows it)"
            )
        self.most = size // 2
        print(
            f"{self.stage}: out of memory with {size} images together; from now on {self.most}, "
            "which changes images by rounding at most",
            flush=True,
        )
