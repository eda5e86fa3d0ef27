"""What had to be decided about a subject, in one word each, and what the words mean: in the index,
in inspect, in the docs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

FLAGS = {
    # which way the heart lies
    "mirrored": "the heart was a mirror image, and the header did not say so: mirrored back",
    "handedness_assumed": (
        "neither masks nor header tell whether the file is a mirror image: taken as it is"
    ),
    "header_contradicted": "the header places the heart as no heart lies: the masks were followed",
    "rv_missing": "no slice shows where the RV lies from the LV: turned by the header alone",
    "rv_right": "not turned by its masks (cohort.orient), and the RV lies right of the LV",
    # which slices and frames
    "central_moved": "the middle slice holds no LV: the slice nearest its centroid is the centre",
    "short_stack": "fewer than three slices: the central one alone",
    "slices_dropped": "neighbouring slices outside the stack or without labels",
    "neighbours_empty": "neighbouring slices or frames without a picture were left out",
    "neighbours_lost": "frames beside ED and ES cannot be read or do not fit: none in time",
    "mask_reused": (
        "a neighbouring frame carries the annotated frame's mask, having no labels of its own"
    ),
    "ed_unlabelled": (
        "ED has no labels: for the classifier alone, never to teach or draw synthetic images"
    ),
    "es_guarded": "the frame of smallest LV volume was implausible and another was taken",
    "frames_clipped": "only sa_ED and sa_ES, whose intensities are clipped; no neighbours in time",
    "frames_from_labels": "the table's frames hold no labels: ED and ES are those that do",
    "frames_unknown": "ED and ES are single files; their place in the cine was not looked for",
    "es_unplaced": "ES's place in the cine is not known",
    "frames_repeated": "cohort.cine asks for more frames than the cycle has",
    # headers and voxels
    "affine_mismatch": (
        "headers of labels and image disagree: voxels are trusted, and the picture agrees"
    ),
    "labels_moved": (
        "headers of labels and image disagree: world coordinates are followed, and the picture "
        "agrees"
    ),
    "spacing_disputed": (
        "sform and pixdim give different spacings: sform counts where it is possible"
    ),
    "nonfinite": "NaN or infinite voxels were set to 0",
    # the table
    "age_whole_years": "age in whole years: no month of birth",
    "bmi_from_weight": "BMI from weight and height of the visit",
    "bmi_impedance": "BMI by impedance",
    "bmi_instance_0": "BMI of the first visit",
}


def split_flags(flags: str) -> list[str]:
    """ "slices_dropped:2;nonfinite" as ["slices_dropped", "nonfinite"]."""
    return [flag.partition(":")[0] for flag in flags.split(";") if flag]


def joined(rows: Iterable[str]) -> str:
    """The flags of a subject's rows as one string, each once, in the order of their first
    appearance."""
    return ";".join(dict.fromkeys(flag for row in rows for flag in row.split(";") if flag))


def count_flags(subjects: Iterable[str]) -> Mapping[str, int]:
    """How many subjects have each flag, most frequent first; `subjects` are their joined flags."""
    counts = Counter(flag for flags in subjects for flag in set(split_flags(flags)))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
