"""One folder of the ukbb_cardiac layout: which of its files count, which frames are ED and ES, and
the scan they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cmrdata.batch import LV, MYO, RV
from cmrdata.cohorts.challenge import Located, about, around, assembled, still, take_all_or
from cmrdata.labels import check_labels, check_topology, label_frames
from cmrdata.slices import Scan
from cmrdata.volumes import Volume, open_volume

CINE = {"cine": "sa"}
STILLS = {"ED image": "sa_ED", "ES image": "sa_ES"}
NETWORK, MANUAL = "seg_sa", "label_sa"
# in order of preference
SEGMENTATIONS = {"auto": (NETWORK, MANUAL), "network": (NETWORK,), "manual": (MANUAL,)}
STEMS = (
    "sa",
    "sa_ED",
    "sa_ES",
    *(kind + part for kind in (NETWORK, MANUAL) for part in ("", "_ED", "_ES")),
)
TIMED = ("cine", "labels", "all labels")  # the roles of files with a time axis
LEAST_LV = 0.2  # of the largest LV cavity: where it is smaller, the segmentation failed
# mean difference of two pictures of one frame, as a share of its range; noise between frames is
# 0.02
SAME = 0.005


def choose_files(stems: Iterable[str], *, labels: str) -> dict[str, str]:
    """Role -> stem of the files that make a scan, of the `stems` a folder has; `labels` is a key of
    KINDS.

    Roles: "cine", or "ED image" and "ES image" where there is none; "labels" of all frames, or "ED
        labels" and
    "ES labels". Beside a cine, such a pair brings what can tell ES's place in it: the stills, and
    "all labels". Raises ValueError saying what is missing.
    """
    there = set(stems)
    image = next((files for files in (CINE, STILLS) if there.issuperset(files.values())), None)
    if image is None:
        raise ValueError(
            "image: sa.nii.gz is missing, and sa_ED.nii.gz and sa_ES.nii.gz are not both there"
        )
    forms = []
    for kind in SEGMENTATIONS[labels]:
        whole, two = {"labels": kind}, {"ED labels": f"{kind}_ED", "ES labels": f"{kind}_ES"}
        forms += [whole, two] if image is CINE else [two, whole]
    found = next((files for files in forms if there.issuperset(files.values())), None)
    if found is None:
        wanted = " or ".join(f"{kind}.nii.gz" for kind in SEGMENTATIONS[labels])
        raise ValueError(f"labels: no {wanted}, nor ED and ES labels (cohort.labels={labels})")
    if image is STILLS or "labels" in found:
        return {**image, **found}
    clues = {
        role: stem for role, stem in {**STILLS, "all labels": NETWORK}.items() if stem in there
    }
    if not {"ES image", "all labels"} & set(clues):
        raise ValueError(
            "ES labels: neither sa_ES.nii.gz nor seg_sa.nii.gz tells which frame they belong to"
        )
    return {**image, **found, **clues}


def read_scan(
    paths: Mapping[str, Path],
    *,
    mapping: Mapping[int, int],
    expand: bool,
    manual: bool = False,
    frames: int | None = None,
    default_spacing: float | None = None,
    cine: int | None = None,
) -> Scan:
    """The scan of a participant, holding only the frames that are needed.

    Args:
        paths: role (of `choose_files`) -> file.
        mapping: source label -> canonical label.
        expand: whether to add the neighbours in time of ED and ES, or the frames of a `cine`.
        manual: the labels of all frames were drawn by hand, so a frame counts where LV, myocardium
            and RV all occur, and ES is the counted frame with the smallest LV; otherwise they are a
            network's and ES is `end_systole`. ED is frame 0.
        frames: of the cine, where known.
        default_spacing: mm, for a header without a usable one.
        cine: frames of a heartbeat that an image holds; None for ED and ES.

    Returns:
        The scan with flags: es_guarded (see `end_systole`), frames_clipped (pictures of sa_ED and
        sa_ES, whose intensities are clipped), es_unplaced (the number of their ES is unknown, it is
        called 1), neighbours_lost (frames beside ED and ES cannot be read), and those of
        `assembled`.

    Raises:
        ValueError: naming the role and the reason, no path.
    """
    volumes = _open_all(paths, frames=frames, default_spacing=default_spacing)
    if "labels" in volumes:
        es, labels, flags = _labels_of_all(volumes, mapping=mapping, manual=manual)
    else:
        es, labels, flags = _labels_of_two(volumes, mapping=mapping)
    _check(labels[0], labels[es])
    film = None if "es_unplaced" in flags else volumes.get("cine")
    cycle = film.frames if film and expand and film.frames > 2 else None
    wanted = around(0, es, cycle, cine=cine)
    if film:
        with about("cine"):
            pictures, lost = take_all_or(film, wanted, needed=wanted if cine else {0, es})
        flags += ["neighbours_lost"] * lost
        cycle, wanted = (None, {0, es}) if lost else (cycle, wanted)
        located = {t: Located(picture, film) for t, picture in pictures.items()}
    else:
        flags.append("frames_clipped")
        located = {
            t: Located(_still(volumes, role), volumes[role])
            for t, role in ((0, "ED image"), (es, "ES image"))
        }
    masks = {
        t: Located(
            labels[t].copy(),
            volumes["labels" if "labels" in volumes else "ES labels" if t else "ED labels"],
        )
        for t in wanted
        if t in labels
    }
    return assembled(located, masks, ed=0, es=es, cycle=cycle, flags=flags)


def end_systole(counts: np.ndarray) -> int:
    """The frame behind ED with the smallest LV cavity, of its voxel counts (T,).

    Frames without a cavity or with less than a fifth of the largest are failed segmentations and do
    not win; among equals the middle third of the cycle goes first, then the earliest. Raises
    ValueError when no frame is left.
    """
    t = np.arange(len(counts))
    usable = t[(t > 0) & (counts > 0) & (counts >= LEAST_LV * counts.max())]
    if not len(usable):
        raise ValueError("no frame but ED has a plausible LV cavity")
    least = usable[counts[usable] == counts[usable].min()]
    middle = least[(3 * least >= len(counts)) & (3 * least < 2 * len(counts))]
    return int([*middle, *least][0])


def matching_frame(cine: Volume, picture: np.ndarray) -> int | None:
    """The frame behind ED that `picture` (Z, Y, X) shows, perhaps clipped at percentiles of the
    cine; None if none does."""
    seen = np.isfinite(picture)
    if not seen.any():
        return None
    low, high = picture[seen].min(), picture[seen].max()
    best, least = None, SAME * (float(high) - float(low))
    with np.errstate(over="ignore", invalid="ignore"):  # voxels that are no numbers match nothing
        for t, frame in enumerate(cine.stream()):
            if t and (off := np.abs(frame.clip(low, high) - picture).mean(where=seen)) < least:
                best, least = t, off
            if best and least == 0:
                break
    return best


def _open_all(
    paths: Mapping[str, Path], *, frames: int | None, default_spacing: float | None
) -> dict[str, Volume]:
    """The headers, all of one shape; what a first one lacks in spacing comes from
    `default_spacing`, others take the first's."""
    volumes: dict[str, Volume] = {}
    spacing = (default_spacing, default_spacing) if default_spacing else None
    for role, path in paths.items():
        with about(role):
            timed = role in TIMED
            volume = open_volume(path, default_spacing=spacing, frames=frames if timed else None)
            if volume.timed != timed:
                raise ValueError(
                    "no time axis, expected one"
                    if timed
                    else "a time axis, expected a single frame"
                )
            image = next(iter(volumes.values()), volume)
            if volume.shape != image.shape or (
                timed and image.timed and volume.frames != image.frames
            ):
                raise ValueError(f"{_size(volume)}, but the image has {_size(image)}")
        volumes[role], spacing = volume, image.spacing
    return volumes


def _labels_of_all(
    volumes: Mapping[str, Volume], *, mapping: Mapping[int, int], manual: bool
) -> tuple[int, Mapping[int, np.ndarray], list[str]]:
    """(ES, frame -> labels, flags) of a file with the labels of every frame."""
    with about("labels"):
        labels, counts = label_frames(volumes["labels"], mapping)
        labelled = labels.reshape(len(labels), -1).any(axis=1)
        if not labelled.any():
            raise ValueError("unlabelled, every voxel is background")
        es = _drawn_end_systole(labels, counts) if manual else end_systole(counts)
    guarded = not manual and labelled.sum() > 2 and es != counts.argmin()
    if guarded and "cine" not in volumes:
        raise ValueError("ES image: it was taken at a frame whose labels failed")
    return es, dict(enumerate(labels)), ["es_guarded"] if guarded else []


def _labels_of_two(
    volumes: Mapping[str, Volume], *, mapping: Mapping[int, int]
) -> tuple[int, Mapping[int, np.ndarray], list[str]]:
    """(ES, frame -> labels, flags) of ED and ES labels, with ES's place in the cine where that can
    be told."""
    es, cine = None, volumes.get("cine")
    if cine and "ES image" in volumes:
        picture = _still(volumes, "ES image")
        with about("cine"):
            es = matching_frame(cine, picture)
    if cine and es is None and "all labels" in volumes:
        with about("all labels"):
            es = end_systole(label_frames(volumes["all labels"], mapping)[1])
    if es is None and not volumes.keys() >= STILLS.keys():
        raise ValueError("ES image: it shows no frame of the cine")
    labels = {}
    for t, role in ((0, "ED labels"), (es or 1, "ES labels")):
        with about(role):
            labels[t] = check_labels(still(volumes[role]), mapping=mapping)
    return es or 1, labels, [] if es else ["es_unplaced"]


def _drawn_end_systole(labels: np.ndarray, counts: np.ndarray) -> int:
    """The annotated frame of the smallest LV; as in ukbb_cardiac a frame is annotated if it has
    every label."""
    drawn = [
        int(t)
        for t in np.flatnonzero(counts)
        if (labels[t] == MYO).any() and (labels[t] == RV).any()
    ]
    if not drawn:
        raise ValueError("no frame has LV, myocardium and RV")
    if drawn[0]:
        raise ValueError(
            f"the first annotated frame is {drawn[0]} (counted from 0), but ED must be frame 0"
        )
    if len(drawn) == 1:
        raise ValueError("ED is the only annotated frame")
    return min(drawn[1:], key=lambda t: counts[t])


def _check(ed: np.ndarray, es: np.ndarray) -> None:
    """Raise ValueError unless the labels (Z, Y, X) are of one heart at ED and at ES; ED's may be
    lacking."""
    if not ed.any() and not es.any():
        raise ValueError("labels: unlabelled, every voxel is background")
    with about("ES labels"):
        check_topology(es)
    if ed.any():
        with about("ED labels"):
            check_topology(ed)
            if (ed == LV).sum() < (es == LV).sum():
                raise ValueError("the LV cavity is smaller than at ES")


def _still(volumes: Mapping[str, Volume], role: str) -> np.ndarray:
    with about(role):
        return still(volumes[role])


def _size(volume: Volume) -> str:
    return f"{volume.frames} frames of {' x '.join(map(str, volume.shape))} (Z x Y x X)"
