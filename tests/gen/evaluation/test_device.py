"""One device for all networks of an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cmrgen.evaluation import judges
from cmrgen.evaluation.device import evaluation_device


def test_one_function_says_where_networks_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert evaluation_device("auto") == evaluation_device("cpu") == torch.device("cpu")
    assert capsys.readouterr().out == "evaluation: networks run on the CPU\n" * 2
    with pytest.raises(
        ValueError, match=r"device=cuda: torch .* finds no GPU here; device=auto takes the CPU"
    ):
        evaluation_device("cuda")
    for word in ("gpu", "cuda:x", "cpu:1", ""):
        with pytest.raises(
            ValueError, match=f"device={word}: it takes auto, cpu, cuda or cuda:<number>"
        ):
            evaluation_device(word)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    assert evaluation_device("auto") == torch.device("cuda:0") and evaluation_device(
        "cuda:1"
    ) == torch.device("cuda:1")
    assert "networks run on Some GPU (cuda:1)" in capsys.readouterr().out
    assert not torch.backends.cudnn.allow_tf32
    assert evaluation_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"device=cuda:2: there are 2 GPUs here"):
        evaluation_device("cuda:2")


def test_nothing_else_in_an_evaluation_looks_for_a_gpu() -> None:
    root = Path(judges.__file__).parent
    asking = [path.name for path in root.rglob("*.py") if "cuda.is_available" in path.read_text()]
    assert asking == ["device.py"]
