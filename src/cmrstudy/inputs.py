"""What a run was made from, known by fingerprints: stores, bases, generators, sets, weights.

A path says where something lies, not what it is. A run records the fingerprint of each input when
it uses it, so that a changed one is noticed by whoever continues, reuses or evaluates the run.
Nothing here is heavy to import.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmrstudy.paths import shipped

REPEATS = ("seed", "fold", "cohort.fold")  # settings that make repeats of one kind
# key -> fingerprint, at (where it lay), and what else is known of it
Inputs = dict[str, dict[str, Any]]


def weights_hash(folder: Path) -> str:
    """Hash of the networks in a folder: the fingerprint that caches, sets and runs record.

    Of all safetensors, and of what their JSON files say (sizes, latent scale, noise schedule), but
    for generator.json, which tells of the run, and for the notes that libraries leave (keys with
    `_`).
    """
    digest = hashlib.sha256()
    for path in sorted([*folder.rglob("*.safetensors"), *folder.rglob("*.json")]):
        if path.name == "generator.json":
            continue
        content = path.read_bytes() if path.suffix == ".safetensors" else _config(path)
        digest.update(path.relative_to(folder).as_posix().encode() + content)
    return digest.hexdigest()[:16]


def _config(path: Path) -> bytes:
    try:
        config = json.loads(path.read_text())
    except ValueError:
        return b"damaged"
    return json.dumps(
        {key: value for key, value in config.items() if not key.startswith("_")}, sort_keys=True
    ).encode()


def fingerprint_at(place: str | Path) -> str | None:
    """The fingerprint of what lies at a place now; None where nothing is, or nothing that can be
    told in a moment.

    A set or store, a ControlNet run or its folder controlnet/, a base of our own, a finished
    classifier, a file.
    """
    path = shipped(place)
    if renewed := _renewed(path):
        return fingerprint_at(renewed)
    recorded = {
        path / "store.json": "fingerprint",
        path / "controlnet" / "generator.json": "fingerprint",
        path / "generator.json": "fingerprint",
        path / "finished.json": "fingerprint",
    }
    for file, key in recorded.items():
        if file.is_file():
            try:
                mark: str | None = json.loads(file.read_text()).get(key)
                return mark
            except ValueError:
                return "damaged"
    if (path / "base.json").is_file():
        return weights_hash(path)
    return file_hash(path) if path.is_file() else None


def _renewed(store: Path) -> Path | None:
    """The store that has taken a cohort's store's place since its source has changed."""
    try:
        name = json.loads((store / "origin.json").read_text()).get("renewed_as")
    except (OSError, ValueError):
        return None
    return store.with_name(name) if name else None


def file_hash(file: Path) -> str:
    """Hash of a file's bytes."""
    with file.open("rb") as whole:
        return hashlib.file_digest(whole, "sha256").hexdigest()[:16]


def kind_at(place: str | Path) -> str | None:
    """What kind of thing the run in a folder made: a hash of its settings and inputs, seeds and
    folds apart.

    Two sets of one kind are replicates: the same plan, drawn again or by a generator trained again.
    So are those of the folds of a cross-validation; the cohort's store, another in each fold, is
    compared by whoever uses the run. None where no run of ours lies there.
    """
    if not (record := _run_at(place)):
        return None
    settings = {key: value for key, value in record["settings"].items() if key not in REPEATS}
    inputs = {key: of for key, of in record["inputs"].items() if key != "cohort"}
    made_from = {key: of.get("kind") or of["fingerprint"] for key, of in inputs.items()}
    told = json.dumps([settings, made_from], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def seed_at(place: str | Path) -> int | None:
    """The seed of the run in a folder; None where no run of ours lies there."""
    seed: int | None = _run_at(place).get("settings", {}).get("seed")
    return seed


def origin_at(place: str | Path) -> dict[str, Any]:
    """Where the set in a folder comes from: its seed, its generator's fingerprint and seed; None
    for what can't be told."""
    made = _run_at(place)
    generator = made.get("inputs", {}).get("generator", {})
    return {
        "seed": made.get("settings", {}).get("seed"),
        "generator": generator.get("fingerprint"),
        "generator_seed": generator.get("seed"),
    }


def _run_at(place: str | Path) -> dict[str, Any]:
    try:
        return dict(json.loads((Path(place) / "run.json").read_text()))
    except (OSError, ValueError):
        return {}


def changed(inputs: Inputs, places: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(the inputs that are no longer what they were, the inputs that can't be compared), a phrase
    each.

    Args:
        inputs: as a run has recorded them.
        places: key -> where the command at hand says that the input lies; without, where it lay
            then.
    """
    other, unknown = [], []
    for key, record in inputs.items():
        if not record.get("at"):
            continue  # not a thing on disk, such as ImageNet's weights
        place = places.get(key) or record["at"]
        now = fingerprint_at(place)
        if now is None:
            unknown.append(f"{key} ({place})")
        elif now != record["fingerprint"]:
            other.append(f"{key} {place} ({record['fingerprint']} -> {now})")
    return other, unknown


def differing_inputs(old: Inputs, new: Inputs) -> list[str]:
    """ "synthetic_set 3f2a... -> 9bc1..." for every input in which two records differ."""
    prints = [
        {key: record.get("fingerprint") for key, record in inputs.items()} for inputs in (old, new)
    ]
    keys = sorted({*prints[0], *prints[1]})
    return [
        f"{key} {prints[0].get(key)} -> {prints[1].get(key)}"
        for key in keys
        if prints[0].get(key) != prints[1].get(key)
    ]
