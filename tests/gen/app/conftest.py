"""A small phantom cohort, and a generator of random weights that draws what its mask says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmrdata.store import Store

PIXELS = 32


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Store:
    from cmrdata.cohorts.phantom.cohort import Phantom
    from cmrdata.prepare import prepare

    small = Phantom(subjects=200, hf_scale=20, pixels=PIXELS, controls_per_case=0.3)
    return prepare(small, tmp_path_factory.mktemp("cohort"), workers=1)


@pytest.fixture(scope="session")
def run(cohort: Store, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished ControlNet run, as train.py leaves it."""
    import torch

    from cmrgen.render.generator import save_generator
    from cmrgen.training.controlnet import ControlNetModule
    from cmrstudy import runs

    torch.manual_seed(1)
    module = ControlNetModule(base={"weights": str(tiny_base)})
    zeros = [module.controlnet.controlnet_mid_block, *module.controlnet.controlnet_down_blocks]
    for layer in (*zeros, module.controlnet.controlnet_cond_embedding.conv_out):
        torch.nn.init.normal_(layer.weight, std=0.3)
    folder = tmp_path_factory.mktemp("runs") / "controlnet" / "0"
    (folder / "controlnet").mkdir(parents=True)
    facts = {
        "cohort": cohort.folder.name,
        "cohort_fingerprint": cohort.fingerprint,
        "pixels": PIXELS,
        "fields": ["sex", "age", "bmi", "diagnosis"],
        "drawing": {},
        "base": {"kind": "folder", "weights": str(tiny_base)},
        "base_fingerprint": module.base.fingerprint,
    }
    save_generator(module.controlnet, folder / "controlnet", facts)
    sampler = "sampler: {name: unipc, steps: 3, guidance: 2.0, guides: both}\n"
    (folder / "config.yaml").write_text(sampler)
    runs.finish(folder)
    return folder
