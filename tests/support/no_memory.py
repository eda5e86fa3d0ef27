"""Out of memory, as a GPU and as torch's CPU allocator say it."""

from __future__ import annotations

import pytest
import torch

GPU_ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 18.00 GiB.")


def real_error() -> BaseException:
    """What torch's CPU allocator says of 2^55 bytes."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    return caught.value
