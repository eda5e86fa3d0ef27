"""Where the networks of an evaluation run: one answer for the judges, the features, the two-sample
tests, the audit's search and the attack."""

from __future__ import annotations

import torch


def evaluation_device(wanted: str = "auto") -> torch.device:
    """The device of an evaluation's networks, said aloud; every part of the report is handed this
    one.

    On a GPU convolutions keep all of float32, so that features are those of a CPU but for rounding.

    Args:
        wanted: "auto" (the GPU if there is one), "cpu", "cuda", or "cuda:<number>" of several.

    Raises:
        ValueError: another word, or a GPU that torch does not find.
    """
    kind, _, number = str(wanted).partition(":")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind not in ("auto", "cpu", "cuda") or (number and (kind != "cuda" or not number.isdigit())):
        raise ValueError(f"device={wanted}: it takes auto, cpu, cuda or cuda:<number>")
    if kind == "cuda" and not gpus:
        raise ValueError(
            f"device={wanted}: torch {torch.__version__} finds no GPU here; device=auto takes the "
            "CPU then"
        )
    if number and int(number) >= gpus:
        raise ValueError(f"device={wanted}: there are {gpus} GPUs here, the first is cuda:0")
    device = torch.device("cpu" if kind == "cpu" or not gpus else "cuda", int(number or 0))
    if device.type == "cpu":
        device = torch.device("cpu")
    else:
        torch.backends.cudnn.allow_tf32 = False
    print(f"evaluation: networks run on {device_name(device)}", flush=True)
    return device


def device_name(device: torch.device) -> str:
    """ "the CPU", or a GPU's own name."""
    return "the CPU" if device.type == "cpu" else f"{torch.cuda.get_device_name(device)} ({device})"
