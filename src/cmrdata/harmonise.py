"""Synthetic images matched to real ones in grey levels and sharpness: what is left to tell them
apart is what they show.

Two corrections per phase, the same for all images, so differences between hearts stay: a monotone
curve that gives the pooled grey values the real images' histogram (Nyul & Udupa 1999), and a filter
that gives the mean power spectrum, by distance from its centre, the real one's. Both are fitted on
training images alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLE = 512  # images a side that a match is fitted on, at most
# most that a frequency is raised or lowered by: what a generator lacks altogether can't be given
# back
GAIN = 4.0
ROUNDS = 3  # curve and filter in turn: each changes a little what the other has matched


@dataclass(frozen=True)
class Match:
    """What brings images of one source to another's grey levels and sharpness, phase by phase."""

    curves: tuple[np.ndarray, ...]  # of each round, (2, 256) float32 new grey value of each old one
    # of each round, (2, R) float32 by distance from the spectrum's centre
    gains: tuple[np.ndarray, ...]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(n, 2, P, P) uint8 -> the same, matched."""
        x = np.asarray(images, np.float32)
        for curve, gain in zip(self.curves, self.gains, strict=True):
            x = _filtered(_mapped(x, curve), gain)
        return np.rint(x).clip(0, 255).astype(np.uint8)


def match(images: np.ndarray, target: np.ndarray) -> Match:
    """The match of `images` (n, 2, P, P) uint8 to `target` (m, 2, P, P) uint8; neither may be
    empty."""
    x, aim = np.asarray(images, np.float32), np.asarray(target, np.float32)
    spectrum, levels = _spectrum(aim), _quantiles(aim)
    curves, gains = [], []
    for _ in range(ROUNDS):
        curves.append(
            np.stack(
                [
                    np.interp(np.arange(256), *_increasing(a, b))
                    for a, b in zip(_quantiles(x), levels, strict=True)
                ]
            ).astype(np.float32)
        )
        x = _mapped(x, curves[-1])
        gain = np.sqrt(spectrum / np.maximum(_spectrum(x), 1e-9)).clip(1 / GAIN, GAIN)
        gain[:, 0] = 1  # the mean grey value is the curve's
        gains.append(gain.astype(np.float32))
        x = _filtered(x, gains[-1]).clip(0, 255)
    return Match(tuple(curves), tuple(gains))


def _quantiles(images: np.ndarray) -> np.ndarray:
    """(2, 1024) quantiles of each phase's pooled grey values."""
    quantiles: np.ndarray = np.quantile(
        images.swapaxes(0, 1).reshape(images.shape[1], -1), np.linspace(0, 1, 1024), axis=1
    ).T
    return quantiles


def _increasing(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles as points of a curve: where many pixels have one value, the mean of what they
    become."""
    values, at = np.unique(old, return_inverse=True)
    return values, np.bincount(at, new) / np.bincount(at)


def _mapped(images: np.ndarray, curve: np.ndarray) -> np.ndarray:
    levels = np.arange(256)
    return np.stack(
        [np.interp(images[:, k], levels, curve[k]) for k in range(images.shape[1])], 1
    ).astype(np.float32)


def _rings(pixels: int) -> np.ndarray:
    """(P, P // 2 + 1) distance of each of rfft2's frequencies from the centre, rounded."""
    y, x = np.fft.fftfreq(pixels, 1 / pixels), np.fft.rfftfreq(pixels, 1 / pixels)
    rings: np.ndarray = np.rint(np.hypot(y[:, None], x)).astype(int)
    return rings


def _spectrum(images: np.ndarray) -> np.ndarray:
    """(2, R) mean power of each phase by distance from the spectrum's centre."""
    rings = _rings(images.shape[-1]).ravel()
    power = sum((np.abs(np.fft.rfft2(image)) ** 2 for image in images), np.zeros(1)) / len(images)
    return np.stack([np.bincount(rings, phase.ravel()) / np.bincount(rings) for phase in power])


def _filtered(images: np.ndarray, gain: np.ndarray) -> np.ndarray:
    pixels = images.shape[-1]
    wave = np.fft.rfft2(images) * gain[:, _rings(pixels)]
    return np.fft.irfft2(wave, s=(pixels, pixels)).astype(np.float32)
