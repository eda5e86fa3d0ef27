"""What the card of a set says, of whom, and what it keeps to itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml

from cmrgen.publish.model_card import FEW
from cmrgen.render import set_card
from cmrgen.render.set_card import card_of_set

SETTINGS = {
    **{"cohort": "uk-biobank-5a17c0de", "cohort_fingerprint": "c0ffee", "generator": "9e7e"},
    **{"sampler": "unipc", "steps": 8, "guides": "prompt", "plan": "91a7"},
}


def made_set(*, source: str = "ukbb", meta: dict[str, Any] | None = None, **settings: Any) -> Any:
    """FEW people gave masks to one group, one fewer to the other."""
    people = [*(f"SYN{k:04d}" for k in range(FEW)), *(f"SYN1{k:03d}" for k in range(FEW - 1))]
    rows = pd.DataFrame(
        {
            "subject": [*people, people[-1]],
            "group": ["many"] * FEW + ["few"] * FEW,
            "source_row": range(100, 120),
            "prompt": ["a"] + ["b"] * 19,
            "guidance": 2.0,
            "source": source,
            **dict.fromkeys(("angle", "dy", "dx"), 0.0),
            "zoom": 1.0,
            "borrowed": "",
        }
    )
    facts = {"settings": SETTINGS | settings, "pixels": 64, "fov_mm": 160.0, "code": "1.2.3"}
    return SimpleNamespace(index=rows, meta=facts | (meta or {}), fingerprint="5e7")


def facts_of(card: str) -> dict[str, str]:
    """The rows of the table of how it was made."""
    table = card.partition("## How it was made")[2].partition("## Groups")[0]
    rows = (line.strip("| ").split(" | ") for line in table.splitlines() if " | " in line)
    return {row[0]: row[1] for row in rows if len(row) == 2}


def test_a_card_says_how_the_set_was_made_and_of_whom() -> None:
    card = card_of_set(made_set())
    header = yaml.safe_load(card.split("---")[1])
    assert header["size_categories"] == ["n<1K"] and list(header)[0] == "pretty_name"
    assert "20 ED/ES slice pairs in 2 groups" in card
    assert "64 x 64 pixels of 2.5 mm, drawn" in card and 'a prompt such as "b"' in card
    facts = facts_of(card)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d by \d+\.\d+\S*", facts.pop("card written"))
    masks = facts.pop("masks")
    assert masks.startswith("images of one participant: median 1, at most 2; 0 % of the masks are")
    assert facts == {
        **{"cohort": "uk-biobank", "cohort fingerprint": "c0ffee", "generator": "9e7e"},
        **{"sampler": "unipc, 8 steps, guidance 2", "plan": "91a7", "set": "5e7", "code": "1.2.3"},
    }
    # no count below FEW, and no name
    assert f"| many | 10 | 10 | {FEW} |" in card and f"| few | 10 | | < {FEW} |" in card
    assert f"fewer than {FEW} are not counted.\n" in card and "SYN" not in card
    assert "segmentations of real participants.**" in card and "was not examined" in card


def test_what_is_not_known_or_not_so_is_left_out() -> None:
    unknown = {"fov_mm": None, "missing_groups": ["M/a", "F/b"]}
    of = made_set(meta=unknown, guides="both")
    del of.meta["code"]
    of.index.loc[3, "guidance"], of.index.loc[4, "angle"] = 3.5, 2.0
    card = card_of_set(of, kind="nifti")
    assert "64 x 64 pixels, drawn" in card and "Voxels are\nof unknown size." in card
    assert facts_of(card)["code"] == "unknown"
    guided = "unipc, 8 steps, guidance 2 to 3.5 towards mask and prompt"
    assert facts_of(card)["sampler"] == guided
    assert "Groups without a training subject, left out: M/a, F/b." in card
    assert "real participants, some moved a little.**" in card
    assert "Voxels are\n2.5 mm in the plane." in card_of_set(made_set(), kind="nifti")
    assert "synthetic=20 synthetic_set=" in card_of_set(made_set())


def test_a_phantoms_hearts_are_nobodys() -> None:
    assert set_card.PHANTOM in card_of_set(made_set(source="phantom"))
    mixed = made_set(source="phantom")
    mixed.index.loc[0, "source"] = "ukbb"
    assert set_card.PHANTOM not in card_of_set(mixed)
    mixed.index = mixed.index.drop(columns="source")
    assert "segmentations of real participants" in card_of_set(mixed)


def test_a_card_quotes_only_an_audit_of_this_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}: no audit there; run"):
        card_of_set(made_set(), audit=str(tmp_path))
    audit = {"set": "5e7", "date": "2026-11-22", "verdicts": ["None.", "No copies."]}
    (tmp_path / "audit.json").write_text(json.dumps(audit))
    card = card_of_set(made_set(), audit=str(tmp_path))
    assert "- Audit of 2026-11-22: None. No copies.\n" in card and "not examined" not in card
    (tmp_path / "audit.json").write_text(json.dumps({**audit, "set": "other"}))
    with pytest.raises(ValueError, match="is an audit of set other, not of 5e7; run it"):
        card_of_set(made_set(), audit=str(tmp_path))


def test_a_sets_size_is_told_in_the_hubs_classes() -> None:
    classes = {
        "n<1K": (1, 999),
        "1K<n<10K": (1_000, 9_999),
        "10K<n<100K": (10_000, 99_999),
        "100K<n<1M": (100_000, 999_999),
        "n>1M": (1_000_000, 10**8),
    }
    for name, counts in classes.items():
        assert [set_card._size(count) for count in counts] == [name, name]
