"""Where the networks of an evaluation run: one answer for judges, features, the audit's search and
the attack."""

from __future__ import annotations

import torch


def device(asked: str = "auto") -> torch.device:
    """The device of an evaluation's networks, said aloud; every part of the report is handed this
    one.

    On a GPU convolutions keep all of float32, so that features are those of a CPU but for rounding.

    Args:
        asked: "auto" (the GPU if there is one), "cpu", "cuda", or "cuda:<number>" of several.

    Raises ValueError for another word, and for a GPU that torch does not find.
    """
    kind, _, number = str(asked).partition(":")
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind not in ("auto", "cpu", "cuda") or (number and (kind != "cuda" or not number.isdigit())):
        raise ValueError(f"device={asked}: it takes auto, cpu, cuda or cuda:<number>")
    if kind == "cuda" and not cards:
        raise ValueError(
            f"device={asked}: torch {torch.__version__} finds no GPU here; device=auto takes the CPU then"
        )
    if number and int(number) >= cards:
        raise ValueError(f"device={asked}: there are {cards} GPUs here, the first is cuda:0")
    chosen = torch.device("cpu" if kind == "cpu" or not cards else "cuda", int(number or 0))
    if chosen.type == "cpu":
        chosen = torch.device("cpu")
    else:
        torch.backends.cudnn.allow_tf32 = False
    print(f"evaluation: networks run on {named(chosen)}", flush=True)
    return chosen


def named(chosen: torch.device) -> str:
    """ "the CPU", or a GPU's own name."""
    return "the CPU" if chosen.type == "cpu" else f"{torch.cuda.get_device_name(chosen)} ({chosen})"
