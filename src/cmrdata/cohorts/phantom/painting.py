"""Pictures and masks of a heart and what surrounds it, at any slice and frame of its beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.batch import LV, MYO, RV
from cmrdata.slices import cine_frames

FRAMES = 50  # of a cardiac cycle, as in UK Biobank
SLICE_GAP = 10.0  # mm between neighbouring slices
BLOCK = 2**17  # pixels painted together: as many as fit the processor's cache


def volume_curve(frame: np.ndarray, ef: np.ndarray) -> np.ndarray:
    """LV volume as a share of EDV at a frame of the cycle (taken modulo FRAMES): ejection, filling,
    atrial kick.

    Half a cosine down to end-systole at 36 % of the cycle, fast filling over 27 %, rest, and from
    82 % the atrium's share of a fifth; the proportions of a heart at rest (Guyton and Hall,
    Textbook of Medical Physiology, ch. 9).
    """
    t = np.mod(frame, FRAMES) / FRAMES
    end = 0.36  # end-systole at 36 % of the cycle
    ejection = 0.5 * (1 - np.cos(np.pi * np.minimum(t, end) / end))
    filled = 0.78 * np.clip((t - end) / 0.27, 0, 1) ** 1.5 + 0.22 * np.clip((t - 0.82) / 0.18, 0, 1)
    share: np.ndarray = 1 - ef * np.where(t <= end, ejection, 1 - filled)
    return share


ES_FRAME = round(0.36 * FRAMES)
PHASE_FRAMES = (0, ES_FRAME)  # frames of ED and ES
NOTHING = 1e-5  # share of a heart's size that no pixel can see, yet safe to divide by


def render(
    anatomy: pd.DataFrame,
    *,
    slices: np.ndarray,
    frames: np.ndarray,
    pixels: int,
    fov_mm: float,
    seeds: list[tuple[int, ...]],
    cine: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Stacks and masks of phantoms.

    Args:
        anatomy: n rows of `anatomy`, one per stack.
        slices: (n,) offsets from the central slice.
        frames: (n,) offsets from ED and ES.
        pixels: P, of a side.
        fov_mm: that P pixels cover.
        seeds: n, of the noise of each stack.
        cine: frames of a heartbeat that an image holds; None for ED and ES.

    Returns:
        Images (n, 2, P, P) uint8, or (n, cine, P, P), the frames `cine_frames` of which ED and ES
        are the stack's; and masks (n, 2, P, P) uint8. Intensities are mapped like a scan's: 0.5 and
        99.5 % of both phases jointly become 0 and 255.
    """
    size: dict[str, Any] = {"slices": slices, "frames": frames, "pixels": pixels, "fov_mm": fov_mm}
    signal, masks = _scan(anatomy, PHASE_FRAMES, seeds=seeds, **size)
    flat = signal.reshape(len(signal), -1)
    edge = max(1, int(0.005 * flat.shape[1]))
    ranked = np.partition(flat, (edge, flat.shape[1] - 1 - edge), axis=1)
    low, high = ranked[:, edge, None], ranked[:, -1 - edge, None]
    if cine:
        times = cine_frames(*PHASE_FRAMES, FRAMES, count=cine)
        others = sorted(set(times) - set(PHASE_FRAMES))
        more, _ = _scan(anatomy, others, seeds=[(*seed, 1) for seed in seeds], **size)
        place = [[*PHASE_FRAMES, *others].index(t) for t in times]
        signal = np.concatenate([signal, more], axis=1)[:, place]
        flat = signal.reshape(len(signal), -1)
    levels = np.clip((flat - low) * (255 / (high - low)), 0, 255)
    return levels.round().astype(np.uint8).reshape(signal.shape), masks


def _scan(
    anatomy: pd.DataFrame,
    times: Sequence[int],
    *,
    slices: np.ndarray,
    frames: np.ndarray,
    pixels: int,
    fov_mm: float,
    seeds: list[tuple[int, ...]],
) -> tuple[np.ndarray, np.ndarray]:
    """Signal with noise (n, C, P, P) float32 and masks uint8 at the C `times` of the cycle, moved
    by the frame offsets."""
    signal = np.empty((len(anatomy), len(times), pixels, pixels), np.float32)
    masks = np.empty(signal.shape, np.uint8)
    block = max(1, BLOCK // pixels**2)
    for k in range(0, len(anatomy), block):
        block_rows = slice(k, k + block)
        for channel, at in enumerate(times):
            signal[block_rows, channel], masks[block_rows, channel] = paint(
                anatomy.iloc[block_rows],
                slices=slices[block_rows],
                frames=frames[block_rows] + at,
                pixels=pixels,
                fov_mm=fov_mm,
            )
    sigma = anatomy.noise.to_numpy()
    for k, seed in enumerate(seeds):  # one generator per image
        signal[k] = rician(signal[k], sigma[k], np.random.Generator(np.random.SFC64(seed)))
    return signal, masks


def rician(signal: np.ndarray, sigma: np.floating, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of `signal` after complex Gaussian noise of deviation `sigma` (Gudbjartsson & Patz
    1995)."""
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32)
    noise *= sigma
    magnitude: np.ndarray = np.hypot(signal + noise[0], noise[1])
    return magnitude


def paint(
    anatomy: pd.DataFrame, *, slices: np.ndarray, frames: np.ndarray, pixels: int, fov_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free signal (n, P, P) float32 and mask (n, P, P) uint8 of one slice (offset) at one
    frame each.

    Layers of soft-edged shapes from far to near: lung, chest wall, liver, aorta, fat, RV,
    myocardium, LV; all in one place, since each covers those before it. x to the right, y down; the
    RV lies to the left, the chest wall up, liver below, aorta below right.
    """
    a = {str(name): anatomy[name].to_numpy()[:, None, None] for name in anatomy}
    slices, frames = (
        slices.astype(np.float32)[:, None, None],
        frames.astype(np.float32)[:, None, None],
    )
    lv, outer, rv = heart_size(a, slices, frames)
    step = np.float32(fov_mm / pixels)
    axis = ((np.arange(pixels, dtype=np.float32) - (pixels - 1) / 2) * step)[None]
    toward, across = np.cos(a["septum"]), np.sin(a["septum"])  # direction of the RV
    # the crop is centred on the heart's bounding box, so the LV sits to the right of the middle; it
    # does not beat
    centre_x, centre_y = (
        -0.45 * a["rv_rest"] * toward + a["shift_x"],
        -0.45 * a["rv_rest"] * across + a["shift_y"],
    )
    x, y = axis[:, None, :] - centre_x, axis[:, :, None] - centre_y  # mm from the LV centre
    r = np.sqrt(x * x + y * y) + 1e-3
    cos2 = (x * x - y * y) / (r * r) * np.cos(2 * a["oval_at"]) + 2 * x * y / (r * r) * np.sin(
        2 * a["oval_at"]
    )
    shape = 1 + a["oval"] * cos2 + a["pear"] * (x / r) * (4 * (x / r) ** 2 - 3)

    def cover(distance: np.ndarray, softness: float = 1.0) -> np.ndarray:
        """Share of a pixel inside, from the signed distance in mm (negative inside)."""
        return np.clip(0.5 - distance / (softness * step), 0, 1)

    in_lv, in_epi = cover(r - lv * shape), cover(r - outer * shape)
    # RV: an ellipse behind the septum, the epicardium cut out of it
    along, aside = x * toward + y * across, -x * across + y * toward
    reach = outer + rv  # free wall distance from the LV centre
    rv_half, rv_tall = 0.5 * (reach + 0.25 * outer), 0.96 * outer + 0.25 * rv
    u, v = (along - reach + rv_half) / rv_half, aside / rv_tall
    rv_distance = (np.sqrt(u * u + v * v) - 1) * np.minimum(rv_half, rv_tall)
    in_rv = cover(rv_distance) * (1 - in_epi)
    # epicardial surface, RV wall of 2.5 mm included
    heart = np.minimum(r - outer * shape, rv_distance - 2.5)

    body_x, body_y = axis[:, None, :], axis[:, :, None]
    out = np.broadcast_to(0.07 + a["congestion"].clip(0), heart.shape).astype(np.float32)  # lung
    # beyond the ribs: muscle, fat, air
    chest = np.hypot(0.62 * body_x + 12, np.minimum(body_y + 6, 0)) - a["chest"]
    skin = chest - a["muscle"]
    breast = a["breast"] * np.clip(1 - ((body_x + 25) / 55) ** 2, 0, 1)
    out += (0.34 - out) * cover(-chest)
    out += (0.93 - out) * cover(-skin, 1.5)
    out *= 1 - 0.93 * cover(-(skin - a["subcutaneous"] - breast), 1.5)
    liver = (
        a["liver"] - body_y + 0.006 * np.maximum(body_x + 20, 0) ** 2 - 0.08 * body_x
    )  # slopes down to the left lobe
    out += (0.46 - out) * cover(liver, 2)
    out += (
        (0.72 - out)
        * cover(-(body_x * 0.8 + body_y * 0.6 - 74 + a["effusion"]), 2)
        * (a["effusion"] > 0)
    )
    at_x, at_y = a["aorta_far"] * np.cos(a["aorta_at"]), a["aorta_far"] * np.sin(a["aorta_at"])
    aorta = np.hypot(body_x - at_x, body_y - at_y) - a["aorta"]
    out += (0.36 - out) * cover(aorta - 1.8)
    out += (a["blood"] * 0.97 - out) * cover(aorta)
    # fat: a rim around the heart, thick over the RV and in the grooves, thin over the lateral wall
    side = along / r
    rim = a["fat"] * (0.55 + 0.75 * np.clip(side, -0.4, 1) + 0.35 * np.abs(aside / r) ** 4)
    out += (0.10 - out) * cover(heart - rim - 1.6)  # pericardium
    out += (0.90 - out) * cover(heart - rim)
    out += (a["myocardium"] - out) * cover(heart)
    out += (a["blood"] * 0.96 - out) * in_rv
    out += (a["myocardium"] - out) * in_epi
    out += (a["blood"] - out) * in_lv
    # papillary muscles: free at ED, merging with the wall at ES; part of the cavity label
    for angle in (0.9, 2.5):
        px, py = (
            np.cos(angle + a["oval_at"] * 0.1) * lv * 0.62,
            np.sin(angle + a["oval_at"] * 0.1) * lv * 0.62,
        )
        spot = np.hypot(x - px, y - py) - a["papillary"] * a["lv_rest"]
        out += (a["myocardium"] - out) * 0.85 * cover(spot, 1.3) * in_lv
    out *= 1 + (a["bias_x"] * body_x + a["bias_y"] * body_y) / (fov_mm / 2)
    mask = np.where(in_rv > 0.5, RV, 0)
    mask = np.where(in_epi > 0.5, MYO, mask)
    return out, np.where(in_lv > 0.5, LV, mask).astype(np.uint8)


def heart_size(
    a: dict[str, np.ndarray], slices: np.ndarray, frames: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radius of the LV cavity, of the epicardium, and depth of the RV, in mm, at a slice offset and
    frame.

    Bullet model V = 5/6 A L; the myocardium's volume is conserved over the cycle, so a contracting
    wall thickens. Beyond the apex or the base, where no heart is left, all three are too small to
    reach a pixel. Adds the end-diastolic mid-slice `lv_rest` and `rv_rest` to `a`.
    """
    share = volume_curve(frames, a["ef"])
    shorter = 1 - 0.30 * (1 - share)  # longitudinal shortening
    # basal slices are a little larger, apical ones smaller
    taper = 1 - 0.10 * slices - 0.04 * slices**2
    rv_taper = np.where(taper > 0, 1 - 0.12 * slices, NOTHING)
    taper = np.maximum(taper, NOTHING)
    rest = np.sqrt(1200 * a["edv"] / a["length"] / np.pi)
    lv = rest * np.sqrt(share / shorter) * taper
    muscle = ((rest + a["wall"]) ** 2 - rest**2) * taper**2 / shorter
    outer = np.sqrt(lv**2 + muscle)
    rv_share = volume_curve(frames, a["rv_ef"])
    a["lv_rest"], a["rv_rest"] = rest, rest * a["rv"] * 0.74
    return lv, outer, a["rv_rest"] * rv_share / np.sqrt(shorter) * rv_taper
