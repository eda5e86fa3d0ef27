"""Can the source of a picture be told from how its heart lies? Phantoms and real hearts, before and
after turning.

    python benchmarks/orientation.py [--acdc ../shared/data/acdc] [--subjects 120] [--seed 0]

Two sources that differ in orientation alone. Phantoms: the same kind of people in the layouts of
ACDC and of M&Ms, the files of the second laid otherwise, one way for each subject: axes swapped and
reversed, with the header rewritten, lost or left behind; or each source turned in the plane by an
angle of its own, as by two scanners. Real hearts: half of ACDC's patients, drawn at random, become
a second source in the same ways. A small convolutional network is trained on the stored ED/ES
images to tell the source, five-fold by subject; a subject's images vote. 0.5 is chance; the
interval is Wilson's over subjects. `none` is the file's own order, `header` what was done before,
`masks` the default.

Then: the spread of the direction from RV to LV in the stored masks, what the masks know of
    handedness, and how well labels
fit their pictures in place and as mirror images.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from prepare import machine
from scipy import ndimage
from torch import nn

from cmrdata.batch import LV, MYO, RV
from cmrdata.cohorts.acdc import ACDC
from cmrdata.cohorts.mnms import MnMs
from cmrdata.cohorts.phantom.challenge_trees import write_acdc, write_mnms
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.orientation import CERTAIN, ORIENTS, _levels, handedness
from cmrdata.overlay import BETTER, blood_over_muscle
from cmrdata.slices import Scan, stacks

# swapped in the plane; x, y, z reversed
ORDERS = list(itertools.product((False, True), (1, -1), (1, -1), (1, -1)))
HEADERS = ("true", "lost", "stale")
FOLDS, EPOCHS, CHANCE = 5, 40, 0.5
ANGLES = (-35.0, 35.0)  # degrees, of two scanners; each heart 8 about its own
WINDOW_MM = 240.0  # of a turned file
FIELDS = (
    130.0,
    165.0,
    # mm of a picture: one that lies within the files, and the default, which may reach over their
    # edge
)
SEEDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--acdc", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "acdc"
    )
    parser.add_argument("--subjects", type=int, default=120, help="phantoms, half in either layout")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    machine("numpy", "torch")
    with tempfile.TemporaryDirectory() as place:
        phantoms, source = phantom_scans(Path(place), given.subjects, given.seed)
    tell(f"phantoms ({len(phantoms)})", phantoms, source, given.seed)
    if not given.acdc.is_dir():
        return print(f"no ACDC data in {given.acdc}: real hearts are not measured")
    real = acdc_scans(given.acdc)
    half = np.random.default_rng(given.seed).permutation(len(real)) % 2
    tell(f"ACDC ({len(real)})", real, half, given.seed)
    masks(real)
    return None


def phantom_scans(place: Path, count: int, seed: int) -> tuple[list[Scan], np.ndarray]:
    """Scans of as many people in the layout of ACDC as in that of M&Ms, and which of the two."""
    size = {"count": count // 2, "pixels": (152, 144), "mm": 1.9, "slices": 9, "frames": 6}
    scans: list[Scan] = []
    for k, (write, reader) in enumerate(((write_acdc, ACDC), (write_mnms, MnMs))):
        write(
            Phantom(subjects=count, seed=seed + k, design="uniform", hf_share=0.5),
            place / str(k),
            **size,
        )
        cohort = reader(root=place / str(k), salt_root=place)
        scans += [cohort.scan(patient, neighbours=False) for patient in cohort.patients.values()]
    return scans, np.repeat([0, 1], count // 2)


def acdc_scans(root: Path) -> list[Scan]:
    with tempfile.TemporaryDirectory() as secrets:
        cohort = ACDC(root=root, salt_root=secrets)
        return [cohort.scan(patient, neighbours=False) for patient in cohort.patients.values()]


def laid(scan: Scan, swap: bool, x: int, y: int, z: int, *, header: str) -> Scan:
    """The same heart in another order of voxels; its header rewritten ("true"), "lost", or left
    behind ("stale")."""

    def relaid(volume: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((volume.swapaxes(1, 2) if swap else volume)[::z, ::y, ::x])

    affine = scan.affine if header != "lost" else None
    if header == "true" and affine is not None:
        affine = affine[:, [1, 0, 2, 3] if swap else [0, 1, 2, 3]] * [x, y, z, 1]
    return rebuilt(
        scan, relaid, relaid, affine=affine, spacing=scan.spacing[::-1] if swap else scan.spacing
    )


def turned(scan: Scan, degrees: float) -> Scan:
    """The heart turned in the plane about its own centre, as by a scanner whose picture is that
    large, without a header."""
    _, y, x = np.nonzero(scan.labels[scan.ed] | scan.labels[scan.es])
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    spacing = np.array(scan.spacing)
    side = np.ceil(WINDOW_MM / spacing).astype(int)
    # pixels of the window to pixels of the file
    matrix = np.array([[c, -s], [s, c]]) * spacing / spacing[:, None]
    offset = np.array([y.mean(), x.mean()]) - matrix @ ((side - 1) / 2)

    def by(order: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda volume: np.stack(
            [
                ndimage.affine_transform(plane, matrix, offset, tuple(side), order=order)
                for plane in volume
            ]
        )

    return rebuilt(scan, by(1), by(0), affine=None, spacing=scan.spacing)


def rebuilt(
    scan: Scan,
    picture: Callable[[np.ndarray], np.ndarray],
    labels: Callable[[np.ndarray], np.ndarray],
    *,
    affine: np.ndarray | None,
    spacing: tuple[float, float],
) -> Scan:
    frames = {t: picture(np.asarray(frame, np.float32)) for t, frame in scan.frames.items()}
    masks = {t: labels(mask) for t, mask in scan.labels.items()}
    return replace(scan, frames=frames, labels=masks, affine=affine, spacing=spacing)


def tell(name: str, scans: Sequence[Scan], source: np.ndarray, seed: int) -> None:
    """Accuracy of telling the source, in each way of laying the second one and with each way of
    turning."""
    rng = np.random.default_rng(seed)
    orders = [ORDERS[k] for k in rng.integers(len(ORDERS), size=len(scans))]
    headers = [HEADERS[k] for k in rng.integers(len(HEADERS), size=len(scans))]
    angles = np.array(ANGLES)[source] + rng.normal(0, 8, len(scans))
    ways = {
        "laid alike": scans,
        "axes swapped and reversed": [
            laid(scan, *order, header=header) if second else scan
            for scan, order, header, second in zip(scans, orders, headers, source, strict=True)
        ],
        "turned, two scanners": [
            turned(scan, angle) for scan, angle in zip(scans, angles, strict=True)
        ],
    }
    for (way, files), orient in itertools.product(ways.items(), ORIENTS[::-1]):
        for fov in FIELDS if way.startswith("turned") else FIELDS[:1]:
            made = [
                stacks(scan, pixels=64, fov_mm=fov, expand=True, orient=orient) for scan in files
            ]
            accuracy, low, high = told(made, source, seed)
            spread = circular_spread(
                np.array([direction(masks[central(index)][0]) for _, masks, index in made])
            )
            print(
                f"| {name} | {way} | {fov:.0f} | {orient} | {accuracy:.2f} ({low:.2f} to {high:.2f}) | {spread:.1f} |",
                flush=True,
            )


def central(index: list[dict]) -> int:
    return next(k for k, row in enumerate(index) if row["central"])


def told(made: Sequence[tuple], source: np.ndarray, seed: int) -> tuple[float, float, float]:
    """(share of the subjects whose source a network tells that has not seen them, mean of SEEDS,
    its 95 % interval)."""
    right = float(np.mean([told_once(made, source, seed + 100 * k) for k in range(SEEDS)]))
    n, z = len(made), 1.96
    middle, half = right + z**2 / (2 * n), z * np.sqrt(right * (1 - right) / n + z**2 / (4 * n**2))
    return right, (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def told_once(made: Sequence[tuple], source: np.ndarray, seed: int) -> float:
    images = torch.from_numpy(np.concatenate([part[0] for part in made])).float() / 255
    of = np.repeat(np.arange(len(made)), [len(part[0]) for part in made])
    fold = np.random.default_rng(seed).permutation(len(made)) % FOLDS
    votes = np.zeros(len(made))
    for k in range(FOLDS):
        torch.manual_seed(seed + k)
        seen = torch.from_numpy(fold[of] != k)
        score = trained(images[seen], torch.from_numpy(source[of])[seen].float(), seed + k)(
            images[~seen]
        )
        np.add.at(votes, of[~seen.numpy()], score.numpy())
    return float(((votes > 0) == source).mean())


def trained(
    images: torch.Tensor, source: torch.Tensor, seed: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    network = nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(2, 16, 5, 2, 2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32 * 64, 1),
        nn.Flatten(0),
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    order = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images), generator=order).split(32):
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(
                network(images[rows]), source[rows]
            ).backward()
            optimiser.step()
    return torch.no_grad()(network.eval())


def direction(mask: np.ndarray) -> float:
    """Degrees from columns to rows of the line from the RV's centre to the LV's."""
    lv, rv = (np.argwhere(mask == label).mean(axis=0) for label in (LV, RV))
    return float(np.degrees(np.arctan2(*(lv - rv))))


def circular_spread(degrees: np.ndarray) -> float:
    """Standard deviation of angles about their mean direction."""
    middle = np.angle(np.exp(1j * np.radians(degrees)).mean(), deg=True)
    return float((((degrees - middle + 180) % 360) - 180).std())


def masks(scans: Sequence[Scan]) -> None:
    """What real masks tell of their handedness and of their place on the picture."""
    annotated = [[scan.labels[t] for t in (scan.ed, scan.es)] for scan in scans]
    evidence = np.array(
        [
            handedness([_levels(phase, scan.spacing) for phase in phases], basal_first=True)
            for scan, phases in zip(scans, annotated, strict=True)
        ]
    )
    print(
        f"handedness: mean {evidence.mean():.2f}, sd {evidence.std():.2f}, least {evidence.min():.2f}; certain (at least "
        f"{CERTAIN}) {(evidence >= CERTAIN).mean():.2f}, called mirrored {(evidence <= -CERTAIN).sum()}"
    )
    mirrors = {"in place": (), "columns reversed": (1,), "rows reversed": (0,), "both": (0, 1)}
    rows = []
    for scan, phases in zip(scans, annotated, strict=True):
        frames = [scan.frames[t] for t in (scan.ed, scan.es)]
        planes = [
            (frame[z], phase[z])
            for frame, phase in zip(frames, phases, strict=True)
            for z in range(len(phase))
            if (phase[z] == LV).any() and (phase[z] == MYO).any()
        ]
        pictures, phases = zip(*planes, strict=True)
        rows.append(
            [
                blood_over_muscle(pictures, [np.flip(phase, axes) for phase in phases])
                for axes in mirrors.values()
            ]
        )
    fits = pd.DataFrame(rows, columns=list(mirrors))
    print(fits.describe().loc[["mean", "std", "min", "max"]].round(2).to_string())
    others = fits.drop(columns="in place")
    print(
        f"a mirror image fits better by {BETTER}: {(others.sub(fits['in place'], axis=0) > BETTER).any(axis=1).sum()} of "
        f"{len(fits)}; a mirrored mask would be noticed: "
        + ", ".join(
            f"{name} {(fits['in place'] - others[name] > BETTER).mean():.2f}" for name in others
        )
    )


if __name__ == "__main__":
    main()
