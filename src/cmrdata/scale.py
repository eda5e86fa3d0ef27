"""Where pictures are enlarged, in a sentence: interpolation adds pixels and no detail.

A scan is resampled to the store's pixels, these to the base's or the classifier's, and a drawn
image back to the store's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MM_TOLERANCE = 1.02  # a scan's pixels are given to a hundredth of a millimetre
_TOLD: set[str] = set()


def tell(sentence: str | None) -> None:
    """Print a sentence once in a command, whatever the number of its jobs."""
    if sentence and sentence not in _TOLD:
        _TOLD.add(sentence)
        print(sentence, flush=True)


def of_scans(mm: pd.Series, *, pixels: int, fov_mm: float) -> str | None:
    """How the pixels of scans and of pictures compare; None where no scan's are known.

    Args:
        mm: of a pixel, per subject.
        pixels: of a picture's side.
        fov_mm: that they cover.
    """
    mm, own = mm.dropna(), fov_mm / pixels
    if mm.empty:
        return None
    coarse = mm[mm > MM_TOLERANCE * own]
    scans = f"scans have {mm.median():.2f} mm a pixel ({mm.min():.2f} to {mm.max():.2f})"
    pictures = f"pictures {own:.2f} mm ({pixels} px of {fov_mm:g} mm)"
    if coarse.empty:
        return f"{scans}, {pictures}: none is enlarged"
    return (
        f"{scans}, {pictures}: {len(coarse)} of {len(mm)} subjects are enlarged, up to "
        f"{mm.max() / own:.1f} times; with cohort.pixels={int(MM_TOLERANCE * fov_mm / mm.max())} "
        "nobody is"
    )


def for_a_base(pixels: int, base: int, *, own: int) -> str | None:
    """What happens to pictures of `pixels` that a base of `base` pixels learns; `own`: what it
    takes by default."""
    if pixels < base:
        more = f"; by itself it takes cohort.pixels={own}" if pixels < own else ""
        return (
            f"pictures of {pixels} px are enlarged {base / pixels:.3g} times to the {base} px of "
            f"the base{more}"
        )
    if pixels > base:
        return (
            f"the base draws {base} px and the cohort's pictures have {pixels}: synthetic images "
            f"will be enlarged {pixels / base:.3g} times and lack detail that real ones have, "
            f"which a classifier can learn from; cohort.pixels={base}, or another base"
        )
    return None


def for_a_classifier(pixels: int, network: int) -> str | None:
    """What happens to pictures of `pixels` that a network of `network` pixels sees."""
    if pixels >= network:
        return None
    return (
        f"pictures of {pixels} px are enlarged {network / pixels:.3g} times to "
        f"model.pixels={network}: what they show is decided by cohort.pixels"
    )
