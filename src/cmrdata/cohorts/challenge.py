"""What ACDC, M&Ms and M&Ms-2 have in common: patients annotated at ED and ES, told apart by a
pathology or by how much the annotated left ventricle ejects. A reader adds where its patients are
and how one is read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from cmrdata.batch import LV
from cmrdata.cohorts.reading.cells import Reading, is_missing
from cmrdata.ejection import by_fraction, fractions
from cmrdata.labels import check_labels, check_topology
from cmrdata.orientation import check_orient
from cmrdata.origin import Source
from cmrdata.overlay import overlay, reordered
from cmrdata.protocol import Cohort, Stacks
from cmrdata.pseudonyms import renamed
from cmrdata.slices import Scan, cine_frames, collect
from cmrdata.volumes import Volume

# a pathology that fails some hearts and spares others: a case where the ejection fraction is
# reduced
BY_EF = "by_ef"
LABELLINGS = ("pathology", "ef")
ANY_SPACING = (1.0, 1.0)  # for labels: how large a pixel is, is the image's word
SPACINGS = 0.02  # by which the pixels of ED's and ES's images may differ
T = TypeVar("T")


class Located(NamedTuple):
    """A frame or its labels, and the file they are from."""

    voxels: np.ndarray  # (Z, Y, X)
    volume: Volume


class Annotation(NamedTuple):
    """The labels of one patient."""

    ed: int  # frames, counted from 0
    es: int
    labels: dict[int, Located]  # frame -> labels as `canonical` makes them
    flags: tuple[str, ...] = ()


class Challenge(Cohort):
    """A cohort of annotated patients below the folder `root`; see `cmrdata.protocol.Cohort`.

    label: "pathology" follows the source's diagnosis (the class's `diagnoses`); "ef" the ejection
        fraction of the annotated masks: below `ef_below` per cent a case, from `ef_above` a
        control, between the two neither, so in the split "extra". `ef_below` also decides the
        pathologies that spare some hearts (BY_EF).
    reach: slices to each side of the centre that a training patient gives (paper: 1).
    default_spacing: mm of a pixel for files whose header gives none that a heart can have.
    orient: what turns a heart upright, "masks", "header" or "none"; see `cmrdata.orientation`.
    cine: frames of the heartbeat that an image holds in place of ED and ES; who has no cine is
        rejected.
    salt_root: the folder of the secret by which patients are renamed, and of ejection fractions
        once read.
    """

    fov_mm: float
    orient: str
    # pathology -> diagnosis, BY_EF, or None for neither case nor control
    diagnoses: Mapping[str, str | None]

    def __init__(
        self,
        *,
        root: str | Path | None,
        label: str = "pathology",
        ef_below: float = 40.0,
        ef_above: float = 50.0,
        pixels: int = 64,
        fov_mm: float = 165.0,
        seed: int = 0,
        controls_per_case: float | None = None,
        reach: int = 1,
        max_rejected: float = 0.05,
        default_spacing: float | None = None,
        orient: str = "masks",
        fold: int | None = None,
        cine: int | None = None,
        salt_root: str | Path = "data",
        name: str | None = None,
    ) -> None:
        self.name, self.fold, self.cine = name or type(self).__name__.lower(), fold, cine
        self.orient = check_orient(orient)
        if label not in LABELLINGS:
            raise ValueError(f"cohort.label is {label!r}; it takes {' or '.join(LABELLINGS)}")
        if not 0 < ef_below <= ef_above < 100:
            raise ValueError(
                f"cohort.ef_below is {ef_below:g} and ef_above {ef_above:g}; give per cent, 0 < "
                "below <= above < 100"
            )
        self.root, self.label, self.ef_below, self.ef_above = (
            Path(root) if root else None,
            label,
            ef_below,
            ef_above,
        )
        self.pixels, self.fov_mm, self.seed, self.reach = pixels, fov_mm, seed, reach
        self.controls_per_case, self.max_rejected = controls_per_case, max_rejected
        self.salt_root: Path = Path(salt_root)
        self.default_spacing = (default_spacing, default_spacing) if default_spacing else None

    # ---- what a source says

    @abstractmethod
    def find(self) -> dict[str, Any]:
        """Where each patient is, by original id and in their order. FileNotFoundError says what was
        expected."""

    @abstractmethod
    def describe(self, patient: Any) -> dict[str, Any]:
        """sex, age, bmi and pathology of a patient, and what else is known. ValueError: a reason
        naming nobody."""

    @abstractmethod
    def annotation(self, patient: Any) -> Annotation:
        """A patient's labels at ED and ES, by `canonical`. ValueError: a reason naming nobody."""

    @abstractmethod
    def scan(self, patient: Any, *, neighbours: bool) -> Scan:
        """A patient's images and labels, frames next to ED and ES (or of the `cine`) among them
        where wanted and there."""

    @abstractmethod
    def files(self, patient: Any) -> list[Path]:
        """Image and label files of a patient, whether they exist or not."""

    @abstractmethod
    def texts(self, patient: Any) -> list[Path]:
        """The files that say which frames are ED and ES."""

    @abstractmethod
    def columns(self) -> pd.DataFrame:
        """What was understood of each column of the source's table; see
        `column_report.columns_table`."""

    def known_pathology(self, text: str) -> Reading:
        """A reader of the source's own words."""
        if is_missing(text):
            return Reading()
        try:
            return Reading(self._known(text))
        except ValueError:
            return Reading(odd=f"is none of {', '.join(self.diagnoses)}")

    # ---- the cohort

    @cached_property
    def patients(self) -> dict[str, Any]:
        """Each patient by hashed id, in the order of the original ids."""
        patients = self.find()
        self._named = renamed(list(patients), self.salt_root)
        return {self._named[identifier]: patient for identifier, patient in patients.items()}

    @property
    def settings(self) -> dict[str, Any]:
        return {
            **super().settings,
            "reach": self.reach,
            "default_spacing": self.default_spacing,
            "label": self.label,
            "ef_below": self.ef_below,
            "ef_above": self.ef_above,
            "orient": self.orient,
        }

    @property
    def places(self) -> dict[str, str | None]:
        return {"root": str(self.root) if self.root else None}

    def source(self) -> Source:
        files = {
            subject: [*self.texts(patient), *self.files(patient)]
            for subject, patient in self.patients.items()
        }
        return Source(list(self._named), files)

    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """A row per patient in the order of the original ids, so that the split does not depend on
        the salt.

        Also has pathology (the source's own word), label_source, and ef (0..1) where the diagnosis
        needs it.
        """
        rows, faults = [], []
        for subject, patient in self.patients.items():
            try:
                facts = self.describe(patient)
                word = self._known(facts["pathology"])
            except ValueError as error:
                faults.append((subject, str(error)))
                continue
            rows.append(
                {
                    "subject": subject,
                    "source": self.name,
                    **facts,
                    "pathology": word,
                    "label_source": "manual",
                }
            )
        table, unread = self._diagnosed(pd.DataFrame(rows)) if rows else (pd.DataFrame(), [])
        return table, pd.DataFrame(faults + unread, columns=["subject", "reason"])

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        def scan(subject: str, expand: bool) -> Scan:
            return self.scan(self.patients[subject], neighbours=expand)

        return collect(
            subjects,
            scan,
            pixels=self.pixels,
            fov_mm=self.fov_mm,
            reach=self.reach,
            cine=self.cine,
            orient=self.orient,
        )

    def _known(self, word: str | None) -> str | None:
        """The pathology as `diagnoses` spells it."""
        known = {code.casefold(): code for code in self.diagnoses}
        if word is None or (self.label == "ef" and word.casefold() not in known):
            return word
        if word.casefold() not in known:
            raise ValueError(
                f"unknown pathology {word!r}, expected one of {', '.join(self.diagnoses)}"
            )
        return known[word.casefold()]

    def _diagnosed(self, table: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
        """The table with `diagnosis`, and `ef` where needed; subjects whose masks cannot be read
        for it go."""
        named = table.pathology.map(lambda word: self.diagnoses.get(word))
        table["diagnosis"] = named.astype(object).where(named.notna() & (named != BY_EF), None)
        needed = pd.Series(True, table.index) if self.label == "ef" else named == BY_EF
        if not needed.any():
            return table, []

        def masks(subject: str) -> tuple[np.ndarray, np.ndarray]:
            annotation = self.annotation(self.patients[subject])
            return annotation.labels[annotation.ed].voxels, annotation.labels[annotation.es].voxels

        files = {
            s: self.texts(self.patients[s]) + self.files(self.patients[s])
            for s in table.subject[needed]
        }
        ef, faults = fractions(files, masks, cache=self.salt_root / f"ef-{self.name}.json")
        table["ef"] = table.subject.map(ef).astype(float)
        above = self.ef_above if self.label == "ef" else None
        table.loc[needed, "diagnosis"] = by_fraction(
            table.ef[needed], below=self.ef_below, above=above
        )
        return table[~table.subject.isin(faults)].reset_index(drop=True), list(faults.items())


# ---- reading


@contextmanager
def about(what: str) -> Iterator[None]:
    """Says by kind which file an error is about: never by name, as the system would, for names hold
    ids."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    except OSError as error:
        raise ValueError(f"{what}: file cannot be read ({type(error).__name__})") from None


def still(volume: Volume) -> np.ndarray:
    """The voxels (Z, Y, X) of a volume that must have no time, read to the checksum behind them."""
    if volume.timed:
        raise ValueError("4 axes, expected 3")
    return [frame.copy() for frame in volume.stream()][0]


def canonical(ed: np.ndarray, es: np.ndarray, *, mapping: Mapping[int, int]) -> list[np.ndarray]:
    """ED and ES labels (Z, Y, X) of a source as canonical uint8. Raises ValueError unless they are
    a beating heart's."""
    phases = []
    for phase, raw in (("ED", ed), ("ES", es)):
        with about(f"{phase} labels"):
            labels = check_labels(raw, mapping=mapping)
            check_topology(labels)
            phases.append(labels)
    if (phases[0] == LV).sum() < (phases[1] == LV).sum():
        raise ValueError("ED labels: the LV cavity is smaller than at ES")
    return phases


def around(ed: int, es: int, cycle: int | None, *, cine: int | None = None) -> set[int]:
    """Frames (counted from 0) that have to be read.

    Args:
        ed: frame.
        es: frame.
        cycle: frames of the heart cycle; None where it has none.
        cine: frames of a heartbeat that an image holds; None for ED and ES.

    Returns:
        ED and ES with the frames before and after them, modulo the cycle; or with those of the
        cine.
    """
    if cycle and cine:
        return {ed, es, *cine_frames(ed, es, cycle, count=cine)}
    return {ed, es} | {(frame + step) % cycle for frame in (ed, es) for step in (-1, 1) if cycle}


def take_all_or(
    volume: Volume, wanted: Iterable[int], *, needed: Iterable[int]
) -> tuple[dict[int, np.ndarray], bool]:
    """(the `wanted` frames, or only the `needed` ones where those cannot all be read; whether they
    were lost).

    Damage outside what evaluation reads costs a training subject its neighbouring frames, not its
    place: who is in a cohort does not depend on the split.
    """
    try:
        return volume.take(wanted), False
    except ValueError:
        return volume.take(needed), True


def assembled(
    frames: Mapping[int, Located],
    labels: Mapping[int, Located],
    *,
    ed: int,
    es: int,
    cycle: int | None,
    flags: Iterable[str] = (),
) -> Scan:
    """A scan of frames and labels from one file or several, in the order of voxels of the ED image.

    Args:
        frames: frame -> voxels and the file they are from; at least ED and ES.
        labels: the same of canonical labels.
        ed: frame, counted from 0.
        es: frame.
        cycle: frames of the heart cycle, whose last neighbours the first; None: no neighbours in
            time.
        flags: what the reader had to decide.

    Returns:
        The scan. Where the headers of a frame and its labels disagree, `overlay` decides.

    Raises:
        ValueError: as `overlay` and `Scan` do, and when the pixels of ED and ES differ or all their
            voxels are the same.
    """
    first = frames[ed].volume
    if not np.allclose(frames[es].volume.spacing, first.spacing, rtol=SPACINGS):
        raise ValueError(
            f"ES image: pixels of {_mm(frames[es].volume)} mm, but the ED image has {_mm(first)}"
        )
    if ed != es and _same(frames[ed].voxels, frames[es].voxels):
        raise ValueError("ES image: it is the ED image once more")
    notes = [*flags, *first.flags]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for t in labels:
        image = frames[t].volume if t in frames else first
        groups.setdefault((_key(image.affine), _key(labels[t].volume.affine)), []).append(t)
    canonical_order: dict[int, np.ndarray] = {}
    for together in groups.values():
        image, theirs = (frames.get(together[0], frames[ed]).volume, labels[together[0]].volume)
        annotated = [t for t in together if t in (ed, es)]
        move, flag = overlay(
            [frames[t].voxels for t in annotated],
            [labels[t].voxels for t in annotated],
            image=image.affine,
            theirs=theirs.affine,
        )
        notes += flag
        canonical_order |= {
            t: reordered(move(labels[t].voxels), theirs=image.affine, ours=first.affine)
            for t in together
        }
    pictures = {
        t: reordered(frame.voxels, theirs=frame.volume.affine, ours=first.affine)
        for t, frame in frames.items()
    }
    return Scan(
        pictures,
        ed,
        es,
        canonical_order,
        first.spacing,
        cycle,
        first.affine,
        tuple(dict.fromkeys(notes)),
    )


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two frames are one picture; of a constant one something else is said."""
    middle = len(one) // 2
    if (
        one.shape != other.shape
        or not np.array_equal(one[middle], other[middle])
        or np.ptp(one[middle]) == 0
    ):
        return False
    return np.array_equal(one, other)


def _key(affine: np.ndarray | None) -> bytes:
    return b"" if affine is None else affine.tobytes()


def _mm(volume: Volume) -> str:
    return " x ".join(f"{side:.3g}" for side in volume.spacing)


def one_each(pairs: Iterable[tuple[str, T]], *, at: Path, what: str) -> dict[str, T]:
    """What belongs to each code, in the order of the codes. ValueError, naming no code, where one
    occurs twice."""
    in_order = sorted(pairs, key=lambda pair: pair[0])
    if repeated := len(in_order) - len({code for code, _ in in_order}):
        raise ValueError(f"{at}: {repeated} {what}; give one copy of the data")
    return dict(in_order)
