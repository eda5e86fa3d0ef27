"""The cards of sets and generators, and the tables beside exported images, word by word as they were
when they were last looked at.

A change that is meant: `python tests/gen/publish/test_as_it_was.py` writes the record anew.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrgen.publish.images import publish_set
from cmrgen.publish.model_card import FEW, card_of_generator
from cmrgen.render import set_card
from cmrgen.render.sampler import Sampler
from cmrgen.render.set_card import card_of_set
from support import records
from support.fake_cohort import FakeCohort, fake_set

FILE = Path(__file__).with_name("as_it_was.json")
FACTS = {
    "base": {"kind": "folder", "weights": "/home/someone/base"},
    "base_fingerprint": "84d21530eae07465",
    "cohort": "phantom-b3b20381",
    "fields": ["sex", "age", "bmi", "diagnosis"],
    "pixels": 96,
    "fov_mm": 160.0,
    "training_images": 720,
    "max_repeats": 8,
    "fingerprint": "c0b0fcb3ead6b62a",
    "groups": {"M/70+/normal/hf": FEW, "F/<60/obese/healthy": FEW - 1},
}
HUB = "stabilityai/stable-diffusion-2-1-base"
GENERATORS: dict[str, dict[str, Any]] = {
    "small": {"facts": FACTS, "whole": True, "channels": "paper"},
    "of little known": {
        "facts": {"base": {"kind": "folder"}, "pixels": 64, "fields": ["diagnosis", "sex"]},
        "whole": True,
        "channels": "even",
        "command": "",
        "metrics": {},
    },
    "Stable Diffusion 2.1": {
        "facts": {**FACTS, "base": {"kind": "sd21", "weights": HUB}},
        "whole": False,
        "channels": "paper",
    },
    "Stable Diffusion 2.1 from a file": {
        "facts": {**FACTS, "base": {"kind": "sd21", "weights": "/weights/v2-1.ckpt"}},
        "whole": True,
        "channels": "paper",
    },
    "Stable Diffusion 1.5": {
        "facts": {**FACTS, "base": {"kind": "sd15", "weights": "someone/of-their-own"}},
        "whole": False,
        "channels": "even",
    },
}


def card_record(name: str) -> list[str]:
    how: dict[str, Any] = {
        "command": "python train.py experiment=controlnet",
        "metrics": {"val_loss": 0.12345678, "finished": "yes", "best": True, "steps": 3},
        "pixels": 64,
        "sampler": Sampler("ddim", steps=12, guidance=3),
        **GENERATORS[name],
    }
    return card_of_generator(how.pop("facts"), **how).splitlines()


def made_set(folder: Path, *, missing: list[str], source: str, **facts: Any) -> Store:
    """A set of 40 images; of some groups FEW participants or more gave masks, of others fewer."""
    cohort = prepare(FakeCohort(count=72, unknown=("age",)), folder)
    made = fake_set(folder / "set", cohort, count=40)
    at = made.folder / "store.json"
    told = json.loads(at.read_text()) | facts | {"code": "1.2.3", "missing_groups": missing}
    at.write_text(json.dumps(told))
    made = Store.open(made.folder)
    rows = made.index
    rows["source"] = source
    rows.loc[rows.index < 30, "group"] = "many"
    few = rows.index[(rows.group != "many")]
    rows.loc[few, "group"] = "few"
    rows.loc[few, "subject"] = [f"SYN{k % (FEW - 1):04d}" for k in range(len(few))]
    many = rows.index[rows.group == "many"]
    rows.loc[many, "subject"] = [f"SYN1{k % FEW:03d}" for k in range(len(many))]
    return made


def sets_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(set_card, "code_version", lambda: "9.9.9")
    monkeypatch.setattr(set_card.time, "strftime", lambda form: {"%Y-%m-%d": "2026-11-28"}[form])
    plain = made_set(folder / "a", missing=[], source="phantom")
    told = made_set(folder / "b", missing=["F/<60/hf", "M/hf"], source="ukbb", fov_mm=160.0)
    told.meta["settings"]["guides"] = "both"
    told.index.loc[0, ["guidance", "angle"]] = 3.5, 2.0
    audit = {"set": told.fingerprint, "date": "2026-11-22", "verdicts": ["None.", "No copies."]}
    (folder / "audit.json").write_text(json.dumps(audit))
    cards = {
        "plain": card_of_set(plain),
        "png": card_of_set(told, kind="png"),
        "nifti": card_of_set(told, kind="nifti", audit=str(folder)),
        "nifti of unknown size": card_of_set(plain, kind="nifti"),
    }
    marks = {plain.fingerprint: "PLAIN", told.fingerprint: "TOLD"}
    marks |= {told.meta["settings"]["cohort_fingerprint"]: "COHORT"}
    paths = publish_set(told, folder / "out", formats=["png", "nifti"])
    tables = {
        f"{path.name}/{name}": (path / name).read_text().splitlines()[:14:2]
        for path in paths
        for name in ("metadata.csv", "dataset.json")
        if (path / name).exists()
    }
    text = json.dumps({"cards": {k: v.splitlines() for k, v in cards.items()}, "tables": tables})
    for mark, word in marks.items():
        text = text.replace(mark, word)
    return json.loads(text)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", list(GENERATORS))
def test_a_generators_card_is_as_it_was(name: str) -> None:
    records.check(FILE, name, card_record(name))


def test_a_sets_cards_and_tables_are_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.check(FILE, "sets", sets_record(tmp_path, monkeypatch))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patching:
        sets = sets_record(Path(place), patching)
    records.write(FILE, {**{name: card_record(name) for name in GENERATORS}, "sets": sets})
