"""What follows the base: the size of pictures, and how they are drawn. A setting that is typed
wins.

`${frame:...}` in conf/cohort and `${drawn:...}` in conf/sampler and conf/generate.yaml look at what
a command is given: first its inputs (generator, synthetic_set, the classifiers to evaluate), which
have recorded both, then the base that it names, then what is usual. So the commands of a study
agree without being told again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cmrstudy.paths import plain, shipped

PIXELS, FOV_MM = 64, 165.0  # of a picture's side, where no base says otherwise
FRAME = ("pixels", "fov_mm")
# settings whose folders have recorded the size of their pictures
INPUTS = ("generator", "synthetic_set")


def register_base_resolvers() -> None:
    """Tell OmegaConf of `${frame:...}`, `${drawn:...}` and `${base_pixels:...}`."""
    for name, resolver in (("frame", _frame), ("drawn", _drawn), ("base_pixels", base_pixels)):
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def _frame(what: str, native_mm: Any = None, *, _root_: Any, _parent_: Any) -> Any:
    """`pixels` or `fov_mm` of a cohort whose scans have pixels of `native_mm`; a pool's are given
    by member."""
    for record in _records(_root_, _select(_parent_, "name")):
        if record.get(what) is not None:
            return record[what]
    if _select(_root_, "task") == "base":  # it is trained from nothing, at what its preset says
        frame = {"pixels": _select(_root_, "preset.base_pixels"), "fov_mm": FOV_MM}
    else:
        frame = _select(_root_, "base.frame") or {}
    pixels = frame.get("pixels") or PIXELS
    if what == "pixels":
        return pixels
    # members are cut out alike, so the coarsest decides
    if isinstance(native_mm, Mapping | DictConfig):
        native_mm = max(native_mm[member] for member in _select(_parent_, "of") or native_mm)
    return frame.get("fov_mm") or round(max(FOV_MM, pixels * (native_mm or 0)), 3)


def _drawn(what: str, usual: Any, *, _root_: Any) -> Any:
    """How images of the generator at hand, else of the base, are drawn; `usual` where these say
    nothing."""
    place = _select(_root_, "generator")
    drawing = recorded(place).get("drawing") if place else None
    if drawing is None:
        drawing = _select(_root_, "base.drawing") or {}
    value = drawing.get(what)
    return usual if value is None else value


def base_pixels(weights: Any, *, _root_: Any = None) -> int:
    """The side of a small base's own images; where there is none yet, of those that the preset
    would train it on."""
    own = _json(shipped(plain(str(weights))) / "base.json").get("pixels")
    return int(own or _select(_root_, "preset.base_pixels") or PIXELS)


def recorded(place: str | Path) -> dict[str, Any]:
    """What a generator's, a set's or a classifier's folder says of its pictures.

    pixels, fov_mm: of the cohort's pictures; cohort: its name; drawing: of a generator, how its
    base is drawn. What is not known is left out.
    """
    folder = Path(plain(str(place)))
    settings = _json(folder / "run.json").get("settings", {})
    found = {key: settings.get(f"cohort.{key}") for key in (*FRAME, "name")}
    for made in (_json(folder / "store.json"), _json(folder / "controlnet" / "generator.json")):
        found |= {key: made.get(key, found.get(key)) for key in (*FRAME, "drawing")}
    return {
        "cohort" if key == "name" else key: value
        for key, value in found.items()
        if value is not None
    }


def _records(root: Any, cohort: str | None) -> Iterator[dict[str, Any]]:
    """What the command's inputs have recorded, as far as they are of this cohort."""
    records = [recorded(place) for key in INPUTS if (place := _select(root, key))]
    if classifiers := _select(root, "classifiers"):
        records.append(_alike(Path(plain(str(classifiers))), cohort))
    yield from (record for record in records if record.get("cohort", cohort) == cohort)


def _alike(classifiers: Path, cohort: str | None) -> dict[str, Any]:
    """What all classifiers of a cohort below a folder have recorded; nothing where they differ."""
    records = [recorded(path.parent) for path in sorted(classifiers.glob("**/run.json"))]
    frames = [{key: of.get(key) for key in FRAME} for of in records if of.get("cohort") == cohort]
    return frames[0] if frames and all(frame == frames[0] for frame in frames) else {}


def _select(node: Any, key: str) -> Any:
    """A value of the config; None where there is none, or none yet."""
    try:
        return OmegaConf.select(node, key)
    except OmegaConfBaseException:
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
