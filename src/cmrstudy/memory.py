"""What running out of memory looks like, on a GPU or off it, and the paragraph it becomes. Imports
nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

PHRASES = (  # of errors that are none of torch's OutOfMemoryError
    "out of memory",  # CUDA's and MPS's own
    "can't allocate memory",  # torch's allocator for CPUs
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class OutOfMemory(Exception):
    """The memory is too small for the least that a stage can do at once; says what takes less."""


def exhausted(error: BaseException) -> bool:
    """Whether an error means that memory was asked for and not there."""
    if isinstance(error, OutOfMemory):
        return False  # told already
    names = [kind.__name__ for kind in type(error).__mro__]
    phrased = isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in PHRASES)
    return "OutOfMemoryError" in names or isinstance(error, MemoryError) or phrased


@contextmanager
def explained(paragraph: Callable[[], str]) -> Iterator[None]:
    """Out of memory within the block becomes OutOfMemory with this paragraph."""
    try:
        yield
    except Exception as error:
        if not exhausted(error):
            raise
        raise OutOfMemory(paragraph()) from error


def of_training(
    stage: str,
    *,
    setting: str,
    batch_size: int,
    accumulated: int,
    precision: str,
    lighter: str = "",
) -> str:
    """The paragraph for a training step that does not fit.

    Args:
        stage: the run's folder or another name.
        setting: the key of the batch size.
        batch_size: images of a forward.
        accumulated: batches of a step, as trainer.accumulate_grad_batches says.
        precision: trainer.precision.
        lighter: settings of the network that take less memory, and what they cost.
    """
    ways = []
    if batch_size > 1 and batch_size % 2 == 0:
        ways.append(
            f"{setting}={batch_size // 2} trainer.accumulate_grad_batches={2 * accumulated} takes "
            "about half, for as many images a step"
        )
    elif batch_size > 1:
        ways.append(f"{setting}={batch_size // 2} takes about half")
    if lighter:
        ways.append(lighter)
    if precision.startswith("32"):
        ways.append("trainer.precision=bf16-mixed takes less where the GPU has bfloat16")
    ways.append("another program may hold a part of the memory (nvidia-smi shows it)")
    return (
        f"{stage}: out of memory in a training step, with {setting}={batch_size}, "
        f"trainer.accumulate_grad_batches={accumulated} and trainer.precision={precision}. "
        f"{'; '.join(ways)}. What changes the numbers makes another run: give it another name=, "
        "or overwrite=true"
    )
