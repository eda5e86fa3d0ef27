"""The loaders that benchmarks/classifier_epoch.py measures ours against: an image a file, prepared
one at a time.

Each takes files and gives an endless supply of epochs: shuffled batches (B, 3, 224, 224), shuffled
anew, by as many worker processes as ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cmrdata.batch import ed_es_ed

SIDE = 224  # pixels that the network sees (paper 2.3)
NOISE = 0.05  # standard deviation, in units of the intensity range, of half the images


def written(images: np.ndarray, masks: np.ndarray, folder: Path) -> list[tuple[Path, Path]]:
    """(n, 2, P, P) images and masks as the reference keeps them: PNG files with channels ED, ES,
    ED; labels times 64."""
    files = []
    for k, (image, mask) in enumerate(zip(images, masks, strict=True)):
        pair = (folder / f"{k:05d}.png", folder / f"{k:05d}_mask.png")
        for path, array in zip(pair, (image, mask * 64), strict=True):
            Image.fromarray(np.moveaxis(ed_es_ed(array), 0, -1)).save(path)
        files.append(pair)
    return files


def repeated(loader: Any, batch: Callable[[Any], Tensor]) -> Callable[[], Iterator[Tensor]]:
    return lambda: map(batch, loader)


def torchio_loader(
    files: list[tuple[Path, Path]], *, workers: int, batch: int, crop: int | None = None
) -> Any:
    """SubjectsDataset; with `crop` the mask is read too and the image cropped around it, as the
    reference does."""
    import torchio as tio

    subjects = [
        tio.Subject(image=tio.ScalarImage(image), **({"mask": tio.LabelMap(mask)} if crop else {}))
        for image, mask in files
    ]
    chain = [
        *([tio.CropOrPad((crop, crop, 1), mask_name="mask")] if crop else []),
        tio.RescaleIntensity((0, 1)),
        tio.Resize((SIDE, SIDE, 1)),
        tio.RandomFlip(axes=(0, 1), flip_probability=0.5),
        tio.RandomNoise(std=(NOISE, NOISE), p=0.5),
    ]
    loader = tio.SubjectsLoader(
        tio.SubjectsDataset(subjects, transform=tio.Compose(chain)),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return repeated(loader, lambda found: found["image"][tio.DATA][..., 0])


def monai_loader(
    files: list[tuple[Path, Path]], *, workers: int, batch: int, cache: Path | None = None
) -> Any:
    """Dataset; with a `cache` folder PersistentDataset, which keeps each image as it is before the
    augmentation."""
    from monai import transforms as mt
    from monai.data import DataLoader as Loader
    from monai.data import Dataset, PersistentDataset
    from monai.utils import set_determinism

    set_determinism(0)
    torch.use_deterministic_algorithms(False)
    chain = mt.Compose(
        [
            mt.LoadImage(image_only=True, reader="PILReader", ensure_channel_first=True),
            mt.ScaleIntensity(),
            mt.Resize((SIDE, SIDE), mode="bilinear"),
            mt.ToTensor(track_meta=False),
            mt.RandFlip(prob=0.5, spatial_axis=0),
            mt.RandFlip(prob=0.5, spatial_axis=1),
            mt.RandGaussianNoise(prob=0.5, std=NOISE, sample_std=False),
        ]
    )
    paths = [str(image) for image, _ in files]
    kept = PersistentDataset(paths, chain, cache_dir=cache) if cache else Dataset(paths, chain)
    loader = Loader(
        kept, batch_size=batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return repeated(loader, torch.as_tensor)


PEERS: dict[str, Callable[..., Any]] = {
    "TorchIO": torchio_loader,
    "TorchIO, cropping": partial(torchio_loader, crop=120),
    "MONAI Dataset": monai_loader,
    "MONAI PersistentDataset": monai_loader,
}
