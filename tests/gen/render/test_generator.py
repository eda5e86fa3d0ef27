"""Images of a generator, on a random base of 32 pixels."""

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cmrgen.base.frozen import as_control
from cmrgen.diffusion import denoise
from cmrgen.render import generator as module
from cmrgen.render.generator import Generator, load_generator, save_generator
from cmrgen.render.sampler import Sampler, embedded_once
from cmrstudy import runs
from support.tiny_controlnet import awake, changed, module_on, tensors


@pytest.fixture(scope="module")
def generator(tiny_base) -> Generator:
    module = module_on(tiny_base)
    return Generator(base=module.base, controlnet=awake(module.controlnet), facts={})


@pytest.fixture(scope="module")
def requests(latents):
    store = latents().store
    words = ["Male, age in 70s", "Female, obese BMI", "", "Male, with heart failure"]
    return {
        "masks": torch.from_numpy(store.masks[[0, 40, 90, 140]]),
        "prompts": words,
        "seeds": [3, 1, 4, 15],
        "guidance": [2.0, 2.0, 1.0, 4.0],
    }


def some(requests: dict, rows: list[int]) -> dict:
    return {
        name: values[rows] if name == "masks" else [values[k] for k in rows]
        for name, values in requests.items()
    }


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """At most one grey level apart on 99.9 % of pixels."""
    return bool(((a.int() - b.int()).abs() <= 1).float().mean() >= 0.999)


@pytest.mark.parametrize(
    ("sampler", "guides"), [("unipc", "both"), ("ddim", "prompt"), ("dpmpp", "prompt")]
)
def test_an_image_is_the_same_whatever_its_batch(generator, requests, sampler, guides):
    how = {"sampler": Sampler(sampler, steps=3, guides=guides)}
    together = generator.images(**requests, **how)
    assert (
        together.shape == (4, 2, 32, 32) and together.dtype == torch.float32 and together.std() > 5
    )
    assert torch.equal(generator.images(**requests, **how), together)
    for rows in ([0], [2], [3, 1], [2, 0, 3]):
        assert close(generator.images(**some(requests, rows), **how), together[rows]), rows


def test_rows_without_a_mask_are_the_bases_own(generator, requests):
    x, t = torch.randn((3, *generator.base.latent_shape)), torch.tensor(500)
    context, control = (
        generator.embed(requests["prompts"][:3]),
        as_control(requests["masks"][:3], generator.base.pixels),
    )
    networks = (generator.base.unet, generator.controlnet)
    steered, sees = torch.tensor([0, 2]), torch.tensor([True, False, True])
    with torch.no_grad():
        mixed = denoise(*networks, x, t, context=context, control=control[steered], steered=steered)
        with_mask = denoise(*networks, x, t, context=context, control=control)
        alone = denoise(*networks, x, t, context=context, control=None)
    torch.testing.assert_close(
        mixed, torch.where(sees.view(-1, 1, 1, 1), with_mask, alone), atol=1e-5, rtol=0
    )
    assert (with_mask - alone).abs().max() > 1e-3


def test_guidance_towards_both_pushes_the_mask_too_once_it_steers(generator, requests, tiny_base):
    def drawn(made: Generator, **changes) -> torch.Tensor:
        asked = {**requests, "prompts": [""] * 4, "guidance": [4.0] * 4, **changes}
        return made.images(**asked, sampler=Sampler(steps=2, guides="both"))

    asleep = Generator(base=generator.base, controlnet=module_on(tiny_base).controlnet, facts={})
    plain = asleep.images(
        **{**requests, "prompts": [""] * 4, "guidance": [1.0] * 4}, sampler=Sampler(steps=2)
    )
    # an untrained ControlNet and no prompt: nothing to push towards
    assert close(drawn(asleep), plain)
    assert not close(drawn(generator), drawn(generator, guidance=[1.0] * 4))


@pytest.mark.parametrize("what", ["masks", "prompts", "seeds", "guidance"])
def test_an_image_depends_on_its_own_mask_prompt_seed_and_guidance(generator, requests, what):
    before = generator.images(**requests, sampler=Sampler(steps=3))
    other = {
        "masks": torch.zeros_like(requests["masks"]),
        "prompts": ["healthy"] * 4,
        "seeds": [9] * 4,
        "guidance": [7.0] * 4,
    }
    second = {**requests, what: requests[what].clone() if what == "masks" else list(requests[what])}
    second[what][1] = other[what][1]
    after = generator.images(**second, sampler=Sampler(steps=3))
    assert (before[1] != after[1]).any()
    assert close(before[[0, 2, 3]], after[[0, 2, 3]])


def test_strength_zero_switches_the_mask_off(generator, requests):
    blank = {**requests, "masks": torch.zeros_like(requests["masks"])}
    off = [generator.images(**r, strength=0.0, sampler=Sampler(steps=2)) for r in (requests, blank)]
    assert torch.equal(*off)


def test_drawing_leaves_the_network_as_it_was(generator, requests):
    embedding, before = (
        generator.controlnet.controlnet_cond_embedding,
        tensors(generator.controlnet),
    )
    generator.images(**requests, sampler=Sampler(steps=1))
    assert generator.controlnet.controlnet_cond_embedding is embedding
    with pytest.raises(ValueError, match="sampler.name is 'euler'"):
        generator.images(**requests, sampler=Sampler(name="euler"))
    assert generator.controlnet.controlnet_cond_embedding is embedding
    assert changed(before, tensors(generator.controlnet)) == []


def test_the_mask_embedded_once_steers_as_the_mask_itself(generator, requests):
    control = as_control(requests["masks"], 32)
    x, t = torch.randn((4, *generator.base.latent_shape)), torch.tensor(500)
    how = {"context": generator.base.embed(requests["prompts"])}
    with torch.no_grad():
        direct = denoise(generator.base.unet, generator.controlnet, x, t, control=control, **how)
        with embedded_once(generator.controlnet, control) as ready:
            once = denoise(generator.base.unet, generator.controlnet, x, t, control=ready, **how)
    assert torch.equal(direct, once)
    with pytest.raises(KeyError), embedded_once(generator.controlnet, control):
        raise KeyError
    with torch.no_grad():
        assert torch.equal(
            denoise(generator.base.unet, generator.controlnet, x, t, control=control, **how), direct
        )


def test_a_generator_survives_its_run_folder_and_its_base_may_not_change(
    generator, requests, tiny_base, tmp_path
):
    weights, run = tmp_path / "base", tmp_path / "run"
    shutil.copytree(tiny_base, weights)
    facts = {
        "base": {"weights": str(weights)},
        "base_fingerprint": generator.base.fingerprint,
        "fields": ["sex"],
    }
    mark = save_generator(copy.deepcopy(generator.controlnet), run / "controlnet", facts)
    with pytest.raises(FileNotFoundError, match="no finished run there"):
        load_generator(run)
    runs.finish(run)
    found = load_generator(run)
    assert found.facts["fingerprint"] == mark and found.facts["fields"] == ["sex"]
    assert close(
        found.images(**requests, sampler=Sampler(steps=2)),
        generator.images(**requests, sampler=Sampler(steps=2)),
    )
    half = load_generator(run, precision="bf16-mixed").images(**requests, sampler=Sampler(steps=2))
    assert not torch.equal(half, found.images(**requests, sampler=Sampler(steps=2)))
    assert (
        half.int() - found.images(**requests, sampler=Sampler(steps=2)).int()
    ).abs().float().mean() < 8
    with pytest.raises(
        ValueError, match="precision is 'half'; it takes 32-true, bf16-mixed, 16-mixed"
    ):
        load_generator(run, precision="half")
    moved = tmp_path / "moved"
    weights.rename(moved)
    with pytest.raises(
        FileNotFoundError,
        match=r"base is none \(no base.json there\). Give the place where it lies now with base.weights=",
    ):
        load_generator(run)
    again = load_generator(run, base_weights=str(moved))
    assert close(
        again.images(**requests, sampler=Sampler(steps=2)),
        found.images(**requests, sampler=Sampler(steps=2)),
    )
    with pytest.raises(FileNotFoundError, match="its base is not there: [^;]*other is none"):
        load_generator(run, base_weights=str(tmp_path / "other"))


@pytest.mark.parametrize(
    "file", ["text/model.safetensors", "base.json", "scheduler/scheduler_config.json"]
)
def test_a_base_of_which_anything_has_changed_is_another(generator, tiny_base, tmp_path, file):
    weights, run = tmp_path / "base", tmp_path / "run"
    shutil.copytree(tiny_base, weights)
    facts = {
        "base": {"weights": str(weights)},
        "base_fingerprint": generator.base.fingerprint,
        "fields": ["sex"],
    }
    save_generator(copy.deepcopy(generator.controlnet), run / "controlnet", facts)
    runs.finish(run)
    path = weights / file
    if path.suffix == ".json":
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"_note": "a library's"}, indent=3))
        load_generator(run)
        key = next(key for key, value in config.items() if isinstance(value, float | list))
        value = (
            config[key] * 1.01
            if isinstance(config[key], float)
            else [x * 1.01 for x in config[key]]
        )
        path.write_text(json.dumps(config | {key: value}))
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(
        FileNotFoundError, match="has changed since, or is another.*train the ControlNet again"
    ):
        load_generator(run)


def of_words(monkeypatch: pytest.MonkeyPatch, *, known: int) -> tuple[Generator, list[str]]:
    """A generator whose tower says how long a prompt is, and what that was asked; and what was
    let go."""
    asked: list[str] = []

    def embed(prompts: list[str]) -> torch.Tensor:
        asked.extend(prompts)
        return torch.tensor([[len(prompt)] for prompt in prompts])

    base = SimpleNamespace(contexts={}, embed=embed, release=asked.append, device="cpu")
    monkeypatch.setattr(module, "KNOWN_PROMPTS", known)
    return Generator(base=base, controlnet=None, facts={}), asked  # type: ignore[arg-type]


def test_prompts_are_kept_until_there_are_too_many(monkeypatch) -> None:
    generator, asked = of_words(monkeypatch, known=3)
    assert generator.embed(["a", "bb", "a"]).flatten().tolist() == [1, 2, 1]
    generator.embed(["bb", "ccc"])
    assert asked == ["a", "bb", "ccc"] and {*generator.base.contexts} == {"a", "bb", "ccc"}
    generator.embed(["ccc", "dddd"])
    assert {*generator.base.contexts} == {"ccc", "dddd"} and asked[3:] == ["ccc", "dddd"]


def test_the_text_tower_goes_when_all_that_a_plan_says_is_known(monkeypatch) -> None:
    generator, asked = of_words(monkeypatch, known=3)
    generator.learn(["a", "a", "bb"])
    assert asked == ["", "a", "bb", "text"]
    asked.clear()
    generator.learn(["a", "bb", "ccc"])  # with the empty one there are four
    assert asked == []


def test_an_image_of_nothing_is_blank() -> None:
    images = torch.rand(4, 2, 3, 3)
    images[1, 0, 0, 0], images[2], images[3, 1] = torch.nan, 7.0, 7.0
    assert module.blank(images).tolist() == [False, True, True, False]
    images[0, 1, 2, 2] = torch.inf
    assert module.blank(images)[0]


def test_a_generator_of_another_cohort_and_another_precision_are_refused(tmp_path) -> None:
    facts = {"cohort_fingerprint": "c0ffee", "cohort": "phantom-1"}
    store = SimpleNamespace(fingerprint="c0ffee", folder=Path("data/phantom-2"))
    module.check_cohort(facts, store, named="generator=x")  # type: ignore[arg-type]
    store.fingerprint = "7ea"
    with pytest.raises(ValueError, match=r"generator=x was trained on phantom-1 \(c0ffee\), but "):
        module.check_cohort(facts, store, named="generator=x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision is '8'; it takes"):
        load_generator(tmp_path, precision="8")


def test_the_first_clause_of_an_error_is_its_reason() -> None:
    told = ValueError("base.weights=x: no base.json; copy it. Or train\nmore")
    assert module._reason(told) == "no base.json" and module._reason(ValueError("a. b")) == "a"
