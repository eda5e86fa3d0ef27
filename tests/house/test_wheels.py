"""scripts/wheels.py: what a machine without a network is brought, and what it keeps."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from support import ROOT

PROJECT = {"project": {"dependencies": ["torch>=2.8", "torchvision", "Hydra-core>=1.3", "wandb"]}}
TORCH = {"torch": "2.11.0", "torchvision": "0.26.0"}


@pytest.fixture(scope="module")
def wheels() -> ModuleType:
    path = ROOT / "scripts" / "wheels.py"
    spec = importlib.util.spec_from_file_location("wheels_script", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(folder: Path, name: str, *asks: str) -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", *(f"Requires-Dist: {a}" for a in asks)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-1.0.dist-info/METADATA", "\n".join(lines))
    return path


def test_names_are_read_as_every_tool_writes_them(wheels):
    text = "Hydra_Core==1.3.8\n# a comment\nscipy==1.17.1 ; python_version < '3.12'\n-e git+x\n"
    assert wheels.listed(text) == {"hydra-core": "1.3.8", "scipy": "1.17.1"}


def test_what_is_left_out_must_be_a_requirement_and_torch_must_be_there(wheels):
    assert (
        wheels.wanted(PROJECT, without=["WandB"], has=TORCH)
        == PROJECT["project"]["dependencies"][:3]
    )
    with pytest.raises(ValueError, match="--without wandbb: no requirement"):
        wheels.wanted(PROJECT, without=["wandbb"], has=TORCH)
    with pytest.raises(ValueError, match="has no torchvision; install a build of PyTorch"):
        wheels.wanted(PROJECT, without=[], has={"torch": "2.11.0"})


def test_nothing_that_is_there_and_nothing_of_a_build_of_torch_is_brought(wheels):
    pins = {"torch": "2.15.0", "triton": "3.9", "nvidia-cudnn-cu13": "9", "cuda-toolkit": "13"}
    pins |= {"numpy": "2.5", "hydra-core": "1.3.8"}
    assert wheels.needed(pins, {**TORCH, "NumPy": "2.4"}) == ["hydra-core==1.3.8"]


def test_what_is_asked_for_and_nowhere_is_named(wheels, tmp_path):
    paths = [
        wheel(tmp_path, "one", "two>=1", "torch>=2.8", "three; extra == 'all'"),
        wheel(tmp_path, "two", "four", "torch<2.9", "five; python_version < '3.12'"),
    ]
    assert wheels.lacking(paths, TORCH, python="3.12") == [
        "two asks for four, there is none",
        "two asks for torch<2.9, there is 2.11.0",
    ]
