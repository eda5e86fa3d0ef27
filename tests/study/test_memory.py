"""What running out of memory looks like, and the paragraph it becomes."""

from __future__ import annotations

import pytest

from cmrstudy.memory import OutOfMemory, exhausted, explained, of_training
from support.no_memory import GPU_ERROR, real_error


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (GPU_ERROR, True),
        (real_error, True),
        (MemoryError(), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
        (OutOfMemory("told already"), False),
    ],
)
def test_out_of_memory_is_known_by_its_kind_or_its_words(error, is_memory):
    assert exhausted(error() if error is real_error else error) is is_memory


@pytest.mark.parametrize(
    ("batch", "accumulated", "says"),
    [
        (
            8,
            2,
            "data.batch_size=4 trainer.accumulate_grad_batches=4 takes about half, for as many images a step",
        ),
        (3, 1, "data.batch_size=1 takes about half;"),
        (1, 2, r"bf16-mixed\. memory.checkpointing=true keeps less"),
    ],
)
def test_a_training_step_that_does_not_fit_names_what_takes_less(batch, accumulated, says):
    how = {
        "setting": "data.batch_size",
        "batch_size": batch,
        "accumulated": accumulated,
        "precision": "bf16-mixed",
    }
    with (
        pytest.raises(OutOfMemory, match=says) as caught,
        explained(
            lambda: of_training("runs/x", **how, lighter="memory.checkpointing=true keeps less")
        ),
    ):
        raise GPU_ERROR
    assert caught.value.__cause__ is GPU_ERROR and "32-true" not in str(caught.value)
    with pytest.raises(KeyError), explained(lambda: ""):
        raise KeyError


def test_the_whole_paragraph_of_a_step_that_does_not_fit():
    def told(batch: int, precision: str = "32-true") -> str:
        return of_training(
            "runs/x", setting="batch", batch_size=batch, accumulated=3, precision=precision
        )

    begins = (
        "runs/x: out of memory in a training step, with batch={}, "
        "trainer.accumulate_grad_batches=3 and trainer.precision={}. "
    )
    ends = (
        "another program may hold a part of the memory (nvidia-smi shows it). What changes the "
        "numbers makes another run: give it another name=, or overwrite=true"
    )
    less = "trainer.precision=bf16-mixed takes less where the GPU has bfloat16; "
    assert told(1) == begins.format(1, "32-true") + less + ends
    assert (
        told(2, "16-mixed")
        == begins.format(2, "16-mixed")
        + (
            "batch=1 trainer.accumulate_grad_batches=6 takes about half, for as many images a step; "
        )
        + ends
    )
    assert told(7, "bf16") == begins.format(7, "bf16") + "batch=3 takes about half; " + ends
