"""A seeded, vectorised phantom of short-axis cine MRI whose anatomy follows sex, age, BMI and heart
failure.

It lets every command run without patient data, and gives ground truth that no real cohort has.
Volumes, ejection fractions, walls and fat follow published UK Biobank and MESA figures (Petersen
2017, doi 10.1186/s12968-017-0327-9; Kawel 2012); disease prevalences follow Table 2 of the paper.
Classes overlap: a third of the failing hearts keep a normal ejection fraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.axes import AGE, BMI
from cmrdata.batch import LV, MYO, RV
from cmrdata.protocol import Cohort, Stacks
from cmrdata.slices import cine_frames
from cmrdata.subjects import cut, split, with_groups

FRAMES = 50  # of a cardiac cycle, as in UK Biobank
SLICE_GAP = 10.0  # mm between neighbouring slices
# heart failure per 100 scans at imaging, paper Table 2
PREVALENCE = {
    "sex": {"F": 0.56, "M": 1.56},
    "bmi_band": dict(zip(BMI.values, (0.60, 0.96, 2.43), strict=True)),
    "age_band": dict(zip(AGE.values, (0.37, 1.06, 1.93), strict=True)),
}
# a phantom has no unreadable subjects
NOBODY = pd.DataFrame({"subject": [], "reason": []}, dtype=str)
BLOCK = 2**17  # pixels painted together: as many as fit the processor's cache
# slice (basal to apical) and frame of the nine stacks
OFFSETS = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1)]


class Phantom(Cohort):
    """A cohort of `subjects` drawn people, plus `test_subjects` fresh ones that only enlarge the
    test split.

    design: "natural" draws attributes as in UK Biobank imaging and heart failure by a logistic
        model calibrated to PREVALENCE times `hf_scale`; "uniform" draws the 18 attribute cells
        equally often.
    hf_share: fixed share of heart failure, independent of attributes (0 for a healthy cohort); None
        = the model.
    fov_mm, pixels: side of the square crop, in mm and in pixels.
    cine: frames of the heartbeat that an image holds in place of ED and ES.
    """

    max_rejected = 0.0

    fov_mm: float

    def __init__(
        self,
        *,
        subjects: int = 25480,
        test_subjects: int = 0,
        seed: int = 0,
        design: str = "natural",
        hf_scale: float = 1.0,
        hf_share: float | None = None,
        pixels: int = 64,
        fov_mm: float = 165.0,
        controls_per_case: float | None = 4,
        fold: int | None = None,
        cine: int | None = None,
        name: str = "phantom",
    ) -> None:
        if design not in ("natural", "uniform"):
            raise ValueError(f"cohort.design is {design!r}; it takes natural or uniform")
        if subjects < 1 or test_subjects < 0:
            raise ValueError(
                f"a phantom of {subjects} + {test_subjects} subjects cannot be drawn; give at least 1 + 0"
            )
        if hf_scale <= 0 or (hf_share is not None and not 0 <= hf_share <= 1):
            raise ValueError(
                f"hf_scale is {hf_scale} and hf_share {hf_share}; give a scale above 0, and a share in 0..1 or none"
            )
        if fold is not None and test_subjects:
            raise ValueError(
                f"cohort.test_subjects={test_subjects} with fold={fold}: every fold would test them; give 0"
            )
        self.name, self.pixels, self.fov_mm, self.seed, self.fold = name, pixels, fov_mm, seed, fold
        self.controls_per_case, self.cine = controls_per_case, cine
        self.count, self.test_count = subjects, test_subjects
        self.design: dict[str, Any] = {"design": design, "hf_scale": hf_scale, "hf_share": hf_share}

    @property
    def settings(self) -> dict[str, Any]:
        return {
            **super().settings,
            "subjects": self.count,
            "test_subjects": self.test_count,
            **self.design,
            "version": 1,
        }

    @cached_property
    def _drawn(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(people, their anatomy), drawn when they are needed."""
        # fresh people have a stream of their own
        rngs = [np.random.default_rng(self.seed), np.random.default_rng((self.seed, 1))]
        parts = [
            draw_people(n, rng, **self.design)
            for n, rng in zip((self.count, self.test_count), rngs, strict=True)
            if n
        ]
        people = pd.concat(parts, ignore_index=True)
        people.insert(0, "subject", [f"SYN{k:06d}" for k in range(len(people))])
        people.insert(1, "source", self.name)
        hearts = [anatomy(part, rng) for part, rng in zip(parts, rngs, strict=False)]
        return people, pd.concat(hearts, ignore_index=True)

    @property
    def people(self) -> pd.DataFrame:
        return self._drawn[0]

    @property
    def anatomy(self) -> pd.DataFrame:
        return self._drawn[1]

    @property
    def fresh(self) -> np.ndarray:
        """(subjects,) bool: who only enlarges the test split."""
        return np.arange(len(self.people)) >= self.count

    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        table = self.people.assign(
            state=np.where(self.people.diagnosis == "hf", "prevalent", "none"), split="test"
        )
        table.loc[~self.fresh, "split"] = split(
            with_groups(table[~self.fresh]), seed=self.seed, fold=self.fold
        )
        return table, NOBODY

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        """Nine stacks (three cines) of each training subject, the central one of all others, masks
        exact for every frame."""
        numbers = subjects.subject.str[3:].astype(int).to_numpy()
        offsets = [(j, i) for j, i in OFFSETS if i == 0 or not self.cine]
        wanted = [
            (n, j, i)
            for n, s in zip(numbers, subjects.split, strict=True)
            for j, i in (offsets if s in ("train", "extra") else [(0, 0)])
        ]
        number, z, t = (np.array(v) for v in zip(*wanted, strict=True))
        images, masks = render(
            self.anatomy.iloc[number],
            slices=z,
            frames=t,
            pixels=self.pixels,
            fov_mm=self.fov_mm,
            seeds=[
                (self.seed, int(n), int(k))
                for n, k in zip(number, (z + 1) * 3 + t + 1, strict=True)
            ],
            cine=self.cine,
        )
        index = pd.DataFrame(
            {
                "subject": self.people.subject.to_numpy()[number],
                "slice": z,
                "frame": t,
                "central": (z == 0) & (t == 0),
                "flags": "",
                "ed_frame": 0,
                "es_frame": ES_FRAME,
            }
        )
        return Stacks(images, masks, index, NOBODY)


def draw_people(
    n: int, rng: np.random.Generator, *, design: str, hf_scale: float, hf_share: float | None
) -> pd.DataFrame:
    """People of the study's kind.

    Args:
        n: how many.
        rng: of the draws.
        design: "natural" (as in UK Biobank's imaging) or "uniform" (every cell equally often).
        hf_scale: times the prevalence of heart failure.
        hf_share: fixed share of heart failure; None follows the attributes.

    Returns:
        n rows: sex, age (years), bmi (kg/m2), diagnosis.
    """
    if design == "uniform":
        sex = rng.choice(["F", "M"], n)
        age = np.choose(
            rng.integers(0, 3, n),
            [rng.uniform(45, 60, n), rng.uniform(60, 70, n), rng.uniform(70, 82, n)],
        )
        bmi = np.choose(
            rng.integers(0, 3, n),
            [rng.uniform(19, 25, n), rng.uniform(25, 30, n), rng.uniform(30, 40, n)],
        )
    else:  # shares of sex and bands consistent with Table 2; 51.7 % female and 64 years in UK Biobank imaging
        sex = np.where(rng.random(n) < 0.48, "F", "M")
        age = np.clip(rng.normal(64.3, 8.5, n), 44, 82)
        bmi = np.clip(26.0 * np.exp(rng.normal(0, 0.15, n)), 16, 55)
    people = pd.DataFrame({"sex": sex, "age": age.round(2), "bmi": bmi.round(2)})
    chance = (
        np.full(n, hf_share) if hf_share is not None else hf_probability(people, scale=hf_scale)
    )
    people["diagnosis"] = np.where(rng.random(n) < chance, "hf", "healthy")
    return people


def hf_probability(people: pd.DataFrame, *, scale: float = 1.0) -> np.ndarray:
    """Heart-failure probability by a logistic model with one effect per sex, age band and BMI band.

    The effects are raked until the population's prevalence in each of the eight subgroups equals
    PREVALENCE x scale.
    """
    levels = {"sex": people.sex, "age_band": cut(AGE, people.age), "bmi_band": cut(BMI, people.bmi)}
    logit = np.full(len(people), -4.5)
    for _ in range(30):
        for axis, column in levels.items():
            for level, percent in PREVALENCE[axis].items():
                here = (column == level).to_numpy()
                if here.any():
                    target, mean = min(percent * scale / 100, 0.9), _sigmoid(logit[here]).mean()
                    logit[here] += np.log(target / (1 - target)) - np.log(mean / (1 - mean))
    return _sigmoid(logit)


def anatomy(people: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Body and heart of each person: volumes in mL, lengths in mm, angles in radians, signals in
    0..1.

    One long list, since the order of the draws decides everybody's heart.
    """
    n = len(people)
    male, hf = (people.sex == "M").to_numpy(), (people.diagnosis == "hf").to_numpy()
    age, bmi = people.age.to_numpy(), people.bmi.to_numpy()

    def z(sd: float = 1.0) -> np.ndarray:
        return rng.normal(0, sd, n)

    # dilated, mid-range, preserved EF
    kind = np.where(hf, rng.choice([1, 2, 3], n, p=[0.45, 0.25, 0.30]), 0)
    dilated, middle, preserved = kind == 1, kind == 2, kind == 3

    edv = np.where(male, 166 + z(27), 124 + z(19)) * (1 - 0.003 * (age - 62)) + 0.9 * (bmi - 26)
    edv *= np.where(dilated, 1.42 + z(0.2), np.where(middle, 1.15 + z(0.12), 1.0))
    ef = np.where(male, 0.58, 0.61) + z(0.05)
    ef = np.where(
        dilated,
        0.34 + z(0.07),
        np.where(middle, 0.46 + z(0.05), np.where(preserved, ef - 0.02, ef)),
    )
    wall = np.where(male, 6.6, 5.5) + 0.07 * (bmi - 26) + z(0.7)
    wall += np.where(preserved, 1.7, np.where(dilated, -0.3, 0.3 * middle))
    # epicardial, mm
    fat = 3.6 + 0.42 * (bmi - 26) + 0.8 * male + 0.05 * (age - 62) + 0.9 * hf + z(1.0)
    subcutaneous = 13 + 1.35 * (bmi - 26) + np.where(male, -2.5, 3.0) + z(2.2)
    return pd.DataFrame(
        {
            "edv": np.clip(edv, 60, 380),
            "ef": np.clip(ef, 0.12, 0.75),
            "wall": np.clip(wall, 3.6, 13),
            "length": np.where(male, 92, 84)
            * np.cbrt(np.clip(edv, 60, 380) / np.where(male, 166, 124))
            + z(2),
            "rv": np.clip(
                np.where(male, 182, 130) / np.where(male, 166, 124)
                + z(0.1)
                + 0.12 * (dilated | middle),
                0.8,
                1.6,
            ),
            "rv_ef": np.clip(
                np.where(male, 0.54, 0.58) + z(0.05) - np.where(dilated, 0.16, 0.07 * middle),
                0.15,
                0.75,
            ),
            "septum": np.pi + 0.35 + z(0.16),
            "oval": np.abs(z(0.04)),
            "oval_at": rng.uniform(0, np.pi, n),
            "pear": z(0.025),
            "papillary": rng.uniform(0.15, 0.24, n),
            "fat": np.clip(fat, 0.8, 15),
            "subcutaneous": np.clip(subcutaneous, 3, 42),
            "breast": np.where(male, 0, 11 + 0.5 * (bmi - 26) + z(2)).clip(0),
            # chest wall muscle thins with age
            "muscle": np.clip(np.where(male, 13, 9) - 0.2 * (age - 62) + z(1.4), 3, 22),
            "chest": np.where(male, 66, 61) + 0.3 * (bmi - 26) + z(2.5),  # heart centre to ribs
            "aorta": np.clip(np.where(male, 12.3, 11.0) + 0.13 * (age - 62) + z(0.9), 7, 19),
            "aorta_at": 0.95 + z(0.1),
            "aorta_far": 64 + z(3),
            "liver": rng.uniform(44, 58, n) - 0.25 * (bmi - 26),
            "effusion": np.where(hf & (rng.random(n) < 0.35), np.abs(z(8)) + 4, 0),
            "congestion": np.where(hf, 0.05, 0.0) + z(0.02),
            "blood": np.clip(0.86 - 0.002 * (age - 62) + z(0.03), 0.7, 1),
            "myocardium": 0.33 + 0.002 * (age - 62) + z(0.025),
            "noise": np.clip(
                0.022 + 0.0011 * (bmi - 26) + 0.006 * hf + np.abs(z(0.006)), 0.012, 0.08
            ),
            "bias_x": z(0.14),
            "bias_y": -0.12 + z(0.1),
            "shift_x": z(2.0),
            "shift_y": z(2.0),
        }
    ).astype(np.float32)


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
        Images (n, 2, P, P) uint8, or (n, cine, P, P), the frames `cine_frames` of which ED and ES are
        the stack's; and masks (n, 2, P, P) uint8. Intensities are mapped like a scan's: 0.5 and 99.5 %
        of both phases jointly become 0 and 255.
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
    myocardium, LV; all in one place, since each covers those before it. x to the right, y down; the RV lies to the left, the chest wall up, liver below,
    aorta below right.
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


def _sigmoid(v: np.ndarray) -> np.ndarray:
    share: np.ndarray = 1 / (1 + np.exp(-v))
    return share
