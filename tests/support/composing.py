"""Configs composed as a command composes them."""

from __future__ import annotations

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from support import ROOT

CONF = ROOT / "conf"


def composed(command: str, *given: str) -> DictConfig:
    """The config as its command sees it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, list(given), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg
