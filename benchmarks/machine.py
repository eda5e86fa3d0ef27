"""What the benchmarks ask of the machine: the time, the peak of memory, the rate of matrix
products, its name."""

from __future__ import annotations

import platform
import resource
import time
from contextlib import suppress
from pathlib import Path

import torch


def now(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class peak_memory:
    """Within the block, `gib` becomes the peak: allocated on a GPU, else resident of this
    process."""

    def __init__(self, device: torch.device) -> None:
        self.cuda, self.gib = device.type == "cuda", 0.0

    def __enter__(self) -> peak_memory:
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            with suppress(OSError):  # Linux forgets the process's high-water mark
                Path("/proc/self/clear_refs").write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            self.gib = torch.cuda.max_memory_allocated() / 2**30
            return
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with suppress(OSError):
            lines = Path("/proc/self/status").read_text().splitlines()
            kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        self.gib = kilobytes / 2**20


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the best of some square matrix products."""
    n = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn((n, n), device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(10):
        begun = now(device)
        a @ b
        times.append(now(device) - begun)
    return 2 * n**3 / min(times)


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        return f"{card.name}, {card.total_memory / 2**30:.0f} GiB"
    name = platform.processor()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    return f"{name}, {torch.get_num_threads()} threads"
