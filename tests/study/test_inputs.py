"""What a run was made from is known by fingerprints, wherever it lies."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from cmrstudy import inputs


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content))
    return path


def networks(folder: Path) -> Path:
    write(folder / "vae" / "model.safetensors", b"123")
    write(folder / "base.json", {"pixels": 64, "_note": "a library's"})
    return folder


def test_a_networks_hash_is_of_weights_names_and_settings_and_of_no_note(tmp_path):
    folder = networks(tmp_path / "a")
    mark = inputs.weights_hash(folder)
    assert len(mark) == 16 and mark == inputs.weights_hash(networks(tmp_path / "b"))
    write(folder / "generator.json", {"run": "any"})
    write(folder / "README.md", b"text")
    write(folder / "base.json", {"_note": "another", "pixels": 64})
    assert inputs.weights_hash(folder) == mark
    marks = {mark}
    for name, content in (
        ("base.json", {"pixels": 65}),
        ("base.json", b"{"),
        ("vae/model.safetensors", b"124"),
        ("unet/model.safetensors", b""),
    ):
        changed = networks(tmp_path / str(len(marks)))
        write(changed / name, content)
        marks.add(inputs.weights_hash(changed))
    assert len(marks) == 5


def test_a_files_hash_is_of_its_bytes(tmp_path):
    file = write(tmp_path / "w.pth", b"weights")
    assert inputs.file_hash(file) == hashlib.sha256(b"weights").hexdigest()[:16]
    assert inputs.fingerprint_at(file) == inputs.file_hash(file)


@pytest.mark.parametrize(
    "place", ["store.json", "controlnet/generator.json", "generator.json", "finished.json"]
)
def test_what_lies_at_a_place_says_its_fingerprint(tmp_path, place):
    write(tmp_path / place, {"fingerprint": "abc"})
    assert inputs.fingerprint_at(tmp_path) == "abc"
    write(tmp_path / place, b"{")
    assert inputs.fingerprint_at(tmp_path) == "damaged"
    write(tmp_path / place, {})
    assert inputs.fingerprint_at(tmp_path) is None


def test_a_base_of_our_own_is_known_by_its_networks_and_nothing_by_nothing(tmp_path):
    folder = networks(tmp_path / "base")
    assert inputs.fingerprint_at(folder) == inputs.weights_hash(folder)
    assert inputs.fingerprint_at(tmp_path / "nowhere") is None
    assert inputs.fingerprint_at(tmp_path) is None


def test_a_store_that_was_renewed_is_the_one_that_took_its_place(tmp_path):
    for name in ("old", "new"):
        write(tmp_path / name / "store.json", {"fingerprint": name})
    write(tmp_path / "old" / "origin.json", {"renewed_as": "new"})
    write(tmp_path / "new" / "origin.json", {"root": "x"})
    assert (
        inputs.fingerprint_at(tmp_path / "old") == "new" == inputs.fingerprint_at(tmp_path / "new")
    )


def run(folder: Path, *, seed: int = 0, steps: int = 8, generator: str = "g", **more) -> Path:
    settings = {"seed": seed, "fold": seed, "cohort.fold": seed, "steps": steps}
    made_from = {
        "generator": {"fingerprint": generator, "seed": 5, **more},
        "cohort": {"fingerprint": str(seed)},
    }
    write(folder / "run.json", {"settings": settings, "inputs": made_from})
    return folder


def test_repeats_are_of_one_kind_and_other_settings_of_another(tmp_path):
    kind = inputs.kind_at(run(tmp_path / "a"))
    assert kind and kind == inputs.kind_at(run(tmp_path / "b", seed=1))
    assert kind != inputs.kind_at(run(tmp_path / "c", steps=9))
    assert kind != inputs.kind_at(run(tmp_path / "d", generator="h"))
    # generators of one kind make sets of one kind
    trained = [inputs.kind_at(run(tmp_path / g, generator=g, kind="k")) for g in ("g", "h")]
    assert trained[0] == trained[1] != kind
    assert inputs.kind_at(tmp_path / "nowhere") is None


def test_where_a_set_comes_from(tmp_path):
    folder = run(tmp_path / "a", seed=3)
    assert inputs.seed_at(folder) == 3 and inputs.seed_at(tmp_path / "nowhere") is None
    assert inputs.origin_at(folder) == {"seed": 3, "generator": "g", "generator_seed": 5}
    assert set(inputs.origin_at(tmp_path / "nowhere").values()) == {None}
    write(folder / "run.json", b"{")
    assert inputs.seed_at(folder) is None


def test_inputs_that_have_changed_are_told_apart_from_those_that_cannot_be_compared(tmp_path):
    same, other = (
        write(tmp_path / name / "store.json", {"fingerprint": name}).parent for name in "ab"
    )
    record = {
        "cohort": {"fingerprint": "a", "at": str(same)},
        "synthetic_set": {"fingerprint": "a", "at": str(other)},
        "generator": {"fingerprint": "x", "at": str(tmp_path / "gone")},
        "weights": {"fingerprint": "imagenet"},
    }
    changed, unknown = inputs.changed(record, {})
    assert changed == [f"synthetic_set {other} (a -> b)"]
    assert unknown == [f"generator ({tmp_path / 'gone'})"]
    moved = {"synthetic_set": str(same), "generator": str(other)}
    assert inputs.changed(record, moved) == ([f"generator {other} (x -> b)"], [])


def test_records_differ_in_inputs_by_their_names():
    old, new = {"a": {"fingerprint": "1"}, "b": {"fingerprint": "2"}}, {"b": {"fingerprint": "3"}}
    assert inputs.differing_inputs(old, new) == ["a 1 -> None", "b 2 -> 3"]
    assert inputs.differing_inputs(old, old) == []
