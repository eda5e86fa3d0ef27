"""The nearest training image of each of many images, by what is seen and by features: searches for
the memorisation audit.

What is seen is compared by normalised cross-correlation over shifts and flips, so that a moved,
mirrored or noisy copy is still found: in a small subspace with every training image first, then
exactly with the few that came nearest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cmrdata import progress
from cmrdata.selection import Images, row_slices

# side at which images are compared, and the shifts to every side: a sixteenth of the picture
FINE, REACH = 64, 4
WIDTH = 96  # dimensions of the first pass
OTHERS, OWN = 64, 4  # nearest of the first pass that are compared exactly
BLOCK = 2**24  # similarities in memory at once
FLIPS: tuple[tuple[int, ...], ...] = ((), (-2,), (-1,), (-2, -1))


class Nearest(NamedTuple):
    """For n images: similarity in -1..1 and row of the nearest training image, of another and of
    the own person."""

    other: np.ndarray
    other_row: np.ndarray
    own: np.ndarray  # NaN where the image has no own person among the training images
    own_row: np.ndarray  # -1 there

    @property
    def similarity(self) -> np.ndarray:
        return np.asarray(np.fmax(self.other, self.own))

    @property
    def row(self) -> np.ndarray:
        return np.where(self.own > self.other, self.own_row, self.other_row)


Search = Callable[[Any, np.ndarray], Nearest]  # (images or features, own person of each or -1)


def by_sight(
    images: Images,
    people: np.ndarray,
    *,
    device: torch.device | str = "cpu",
    scratch: Path | None = None,
) -> Search:
    """A search among training images; it takes (n, 2, P, P) uint8 images.

    Similarity is the mean over both phases of the normalised cross-correlation, at its peak over
    the four flips and shifts of up to REACH of FINE pixels. Memory: 400 bytes for each training
    image, and 200 MB; 19 kB for each on disk, in a nameless file that is gone with the search.

    Args:
        images: (N, 2, P, P) uint8, read a slice at a time.
        people: (N,) codes >= 0.
        device: where images are compared.
        scratch: the folder of the nameless file; by default the system's.
    """
    fine, coarse = _kept(images, device=device, folder=scratch)
    gram = torch.zeros((flat_width := int(np.prod(coarse.shape[1:])),) * 2, device=device)
    for rows in _blocks(len(coarse)):
        flat = torch.from_numpy(np.array(coarse[rows])).to(device).flatten(1)
        gram += flat.T @ flat
    basis = torch.linalg.eigh(gram).eigenvectors[:, -WIDTH:]
    projected = torch.empty((len(coarse), min(WIDTH, flat_width)), device=device)
    for rows in _blocks(len(coarse)):
        projected[rows] = torch.from_numpy(np.array(coarse[rows])).to(device).flatten(1) @ basis
    filters, codes = (
        basis.T.reshape(-1, *coarse.shape[1:]),
        torch.from_numpy(np.asarray(people)).to(device),
    )
    del coarse, gram

    def search(queries: Images, own: np.ndarray) -> Nearest:
        best: list[tuple[float, int, float, int]] = []
        size = int(np.clip(BLOCK // (len(FLIPS) * (REACH + 1) ** 2 * len(codes)), 1, 64))
        for k in range(0, len(queries), size):
            block = queries[k : k + size]
            is_own = torch.from_numpy(own[k : k + size]).to(device)[:, None] == codes
            rough, flip = _rough(_sized(block, FINE // 2, device), filters, projected)
            pictures = _sized(block, FINE, device)
            near = rough.masked_fill(is_own, -2).topk(min(OTHERS, len(codes))).indices
            for j, picture in enumerate(pictures):
                others = near[j][~is_own[j, near[j]]]
                same = is_own[j].nonzero()[:, 0]
                if len(same) > OWN:
                    same = same[rough[j, same].topk(OWN).indices]
                rows = torch.cat([others, same])
                values = _exact(
                    picture,
                    torch.from_numpy(fine[rows.cpu().numpy()]).to(device).float(),
                    flip[j, rows],
                )
                best.append(
                    (*_best(values[: len(others)], others), *_best(values[len(others) :], same))
                )
        return Nearest(*(np.array(column) for column in zip(*best, strict=True)))

    return search


def by_features(features: np.ndarray, people: np.ndarray) -> Search:
    """A search among training features (N, d) by cosine, each dimension standardised over them; it
    takes (n, d)."""
    mean, spread = features.mean(0), features.std(0)
    spread = np.where(spread > 0, spread, 1)

    def directions(x: np.ndarray) -> np.ndarray:
        x = (x - mean) / spread
        return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9))

    pool, codes = directions(features), np.asarray(people)

    def search(queries: np.ndarray, own: np.ndarray) -> Nearest:
        best, size = [], max(1, BLOCK // len(pool))
        for k in range(0, len(queries), size):
            similar = directions(queries[k : k + size]) @ pool.T
            is_own, at = own[k : k + size, None] == codes, np.arange(len(similar))
            others, same = np.where(is_own, -np.inf, similar), np.where(is_own, similar, -np.inf)
            rows, has = (others.argmax(1), same.argmax(1)), is_own.any(1)
            best.append(
                (
                    others[at, rows[0]],
                    rows[0],
                    np.where(has, same[at, rows[1]], np.nan),
                    np.where(has, rows[1], -1),
                )
            )
        return Nearest(*(np.concatenate(column) for column in zip(*best, strict=True)))

    return search


def _kept(
    images: Images, *, device: torch.device | str, folder: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """Fine (N, 2, s, s) float16 and coarse (N, 2, t, t) float32 templates, memory-mapped: they may
    outgrow the memory."""
    sides = [(FINE, REACH, np.float16), (FINE // 2, REACH // 2, np.float32)]
    templates: list[np.ndarray] = []
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in sides]
        bar = progress.bar("audit: templates", total=len(images), unit="images")
        advance = stack.enter_context(bar)
        for rows in row_slices(images):
            pixels = np.array(images[rows])
            for file, (side, reach, kind) in zip(files, sides, strict=True):
                block = _templates(_sized(pixels, side, device), reach).cpu().numpy()
                file.write(np.ascontiguousarray(block, kind).data)
            advance(len(pixels))
        for file, (side, reach, kind) in zip(files, sides, strict=True):
            file.flush()
            shape = (len(images), 2, side - 2 * reach, side - 2 * reach)
            templates.append(np.memmap(file, kind, "r", shape=shape))
    return templates[0], templates[1]


def _blocks(count: int) -> Iterator[slice]:
    return (slice(k, k + 4096) for k in range(0, count, 4096))


def _sized(images: np.ndarray, side: int, device: torch.device | str = "cpu") -> Tensor:
    """(n, 2, P, P) uint8 -> (n, 2, side, side) float32, blurred: against noise, below FINE against
    half a pixel's shift."""
    x = torch.from_numpy(np.array(images)).to(device).float()
    x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    row = torch.tensor([0.25, 0.5, 0.25], device=device)
    kernel = torch.outer(row, row).expand(2, 1, 3, 3)
    for _ in range(1 if side == FINE else 2):
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=2)
    return x


def _templates(x: Tensor, reach: int) -> Tensor:
    """Middles (n, 2, s, s) of mean 0 per channel; half the squared norm in each, so that products
    are mean correlations."""
    x = x[..., reach:-reach, reach:-reach]
    x = x - x.mean((-2, -1), keepdim=True)
    return x / (x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-3) * 2**0.5)


def _windows(x: Tensor, side: int) -> Tensor:
    """1 / norm of every window's deviation from its mean: (n, 2, S, S) -> (n, 2, S - side + 1, S -
    side + 1)."""
    x = x - x.mean((-2, -1), keepdim=True)  # against cancellation
    square, mean = (
        F.avg_pool2d(F.avg_pool2d(part, (side, 1), 1), (1, side), 1) for part in (x * x, x)
    )
    deviation = square - mean**2
    return 1 / ((deviation.clamp_min(0).sqrt() * side).clamp_min(1e-3) * 2**0.5)


def _correlations(x: Tensor, filters: Tensor) -> Tensor:
    """(n, 2, S, S) with filters (k, 2, s, s) of mean 0 -> (n, S-s+1, S-s+1, k), each window at unit
    norm.

    Every window is half the squared norm per channel, as the templates are.
    """
    side = filters.shape[-1]
    scale, total = _windows(x, side), None
    x = x - x.mean((-2, -1), keepdim=True)
    for channel in range(2):
        every = x[:, channel].unfold(1, side, 1).unfold(2, side, 1).flatten(3)
        part = (every @ filters[:, channel].flatten(1).T) * scale[:, channel, ..., None]
        total = part if total is None else total + part
    return total


def _rough(x: Tensor, filters: Tensor, projected: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity (n, N) with every training image in the subspace, and the flip (n, N) that gives
    it."""
    best, flip = None, None
    for number, axes in enumerate(FLIPS):
        moved = _correlations(x.flip(axes) if axes else x, filters).flatten(1, 2)
        value = (moved.flatten(0, 1) @ projected.T).view(len(x), moved.shape[1], -1).amax(1)
        if best is None or flip is None:
            best, flip = value, torch.zeros_like(value, dtype=torch.int8)
        else:
            better = value > best
            best, flip = torch.where(better, value, best), flip.masked_fill(better, number)
    assert best is not None and flip is not None
    return best, flip


def _exact(picture: Tensor, templates: Tensor, flip: Tensor) -> Tensor:
    """Correlation of a picture (2, S, S) with k templates at its peak over shifts, each under its
    own flip."""
    values = torch.empty(len(templates), device=templates.device)
    for number in flip.unique().tolist():
        use, axes = flip == number, FLIPS[number]
        turned = picture[None].flip(axes) if axes else picture[None]
        values[use] = _peak(_correlations(turned, templates[use])[0].movedim(-1, 0))
    return values


def _peak(grid: Tensor) -> Tensor:
    """The largest of each (k, s, s) grid, between its points by a parabola along each axis; at most
    1."""
    side, at = grid.shape[-1], torch.arange(len(grid), device=grid.device)
    top, place = grid.flatten(1).max(1)
    y, x = place // side, place % side
    raised = top.clone()
    for low, high, inside in (
        (
            grid[at, (y - 1).clamp_min(0), x],
            grid[at, (y + 1).clamp_max(side - 1), x],
            (y > 0) & (y < side - 1),
        ),
        (
            grid[at, y, (x - 1).clamp_min(0)],
            grid[at, y, (x + 1).clamp_max(side - 1)],
            (x > 0) & (x < side - 1),
        ),
    ):
        raised += inside * (high - low) ** 2 / (8 * (2 * top - low - high)).clamp_min(1e-9)
    return raised.clamp_max(1)


def _best(values: Tensor, rows: Tensor) -> tuple[float, int]:
    if not len(values):
        return float("nan"), -1
    k = int(values.argmax())
    return float(values[k]), int(rows[k])
