"""One thread (two on busy cores are slower than one), and a tiny untrained base that takes a second
to make."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from pathlib import Path

import pytest

import cmrstudy.overrides  # noqa: F401 (gives configs the resolvers that name runs)

gc.disable()  # while modules are imported: they stay anyway
# dozens of tests start the program, which would compile itself anew each time
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_finish() -> None:
    """Half a million objects of imported modules are not looked through again at every collection
    of garbage, which takes a tenth of the suite's time."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
    gc.enable()
    atexit.register(gc.unfreeze)  # or libraries complain of leaks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: begun last, it would leave the other process with nothing to do."""
    items.sort(
        key=lambda item: item.path.parent.name != "commands" or item.path.stem != "test_study"
    )


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base folder at 32 px with random weights: right in every shape, useless as a picture."""
    import torch

    from cmrgen.base.small import save_base
    from cmrgen.training import small_base

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    vae = small_base.AutoencoderModule(channels=(8, 8, 16)).vae
    unet = small_base.UnetModule(channels=(16, 16, 32), latent=8).unet
    images = torch.randint(0, 256, (4, 2, 32, 32), dtype=torch.uint8)
    save_base(
        small_base.assemble(vae, unet, small_base.text_tower(0), pixels=32, images=images),
        folder,
        text_config=small_base.TEXT,
    )
    return folder
