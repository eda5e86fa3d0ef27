"""Inception features for a Frechet distance comparable with published ones, from a weights file the user gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import Inception3

from cmrdata.batch import ed_es_ed
from cmrgen.judges import signed


def inception_features(
    images: np.ndarray, weights_path: str | Path, *, batch: int = 32, device: str = "cpu"
) -> np.ndarray:
    """(n, 2048) pool features of (n, 2, P, P) uint8 images, shown as [ED, ES, ED] at 299 px, bilinear, in [-1, 1].

    `weights_path`: a local file, safetensors or a plain torch state dict. 1008 classes mean the network of the
    published FID (pytorch-fid's file), whose pools differ from torchvision's inception_v3 (1000 classes).
    """
    path = Path(weights_path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no Inception weights here; give the file, or use the backbone `domain`")
    safe = path.suffix == ".safetensors"
    state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    state = {key: value for key, value in state.items() if not key.startswith("AuxLogits.")}
    network = Inception3(num_classes=len(state["fc.bias"]), aux_logits=False, init_weights=False)
    network.load_state_dict(state)
    if len(state["fc.bias"]) == 1008:
        published_pools(network)
    network.fc = nn.Identity()  # type: ignore[assignment]
    network.eval().to(device)
    features = np.empty((len(images), 2048), np.float32)
    with torch.inference_mode():
        for k in range(0, len(images), batch):
            x = signed(ed_es_ed(np.array(images[k : k + batch])), torch.device(device))
            features[k : k + batch] = network(F.interpolate(x, size=(299, 299), mode="bilinear")).cpu().numpy()
    return features


def published_pools(network: Inception3) -> None:
    """FID's Inception: average pools do not count the padding, and the last block's pool is a maximum."""

    def uncounted(_: nn.Module, pooled: tuple[Tensor]) -> tuple[Tensor]:
        return (pooled[0] / F.avg_pool2d(torch.ones_like(pooled[0][:1, :1]), 3, 1, 1),)

    for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"):
        getattr(network, f"Mixed_{name}").branch_pool.register_forward_pre_hook(uncounted)
    held: dict[str, Tensor] = {}
    last, pool = network.get_submodule("Mixed_7c"), network.get_submodule("Mixed_7c.branch_pool")
    last.register_forward_pre_hook(lambda _, x: held.update(x=x[0]))
    pool.register_forward_pre_hook(lambda _, pooled: (F.max_pool2d(held.pop("x"), 3, 1, 1),))
