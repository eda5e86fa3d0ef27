"""However many images are asked for, so many go through a network together; where even they don't
fit, fewer do."""

from types import SimpleNamespace

import pytest
import torch

from cmrgen.base import portions
from cmrgen.base.frozen import Base
from cmrgen.base.load import load_base
from cmrgen.base.portions import DRAWN, Portions, drawing_budget, together
from cmrstudy.memory import OutOfMemory
from cmrstudy.runs import paragraph
from support.no_memory import GPU_ERROR, real_error

CPU = torch.device("cpu")


def test_a_portion_is_the_budget_in_pixels_and_at_least_an_image():
    assert [together(p, 2**20) for p in (64, 128, 512, 768, 1024, 2048)] == [256, 64, 4, 1, 1, 1]


@pytest.mark.parametrize(
    ("gigabytes", "images"), [(4, 4), (7.8, 4), (8.6, 4), (12.6, 8), (16.7, 8), (24, 12), (80, 40)]
)
def test_a_larger_gpu_draws_more_together(monkeypatch, gigabytes, images):
    card = SimpleNamespace(total_memory=int(gigabytes * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    assert together(512, drawing_budget(torch.device("cuda:0"))) == images
    assert drawing_budget(CPU) == 2 * DRAWN


def scarce(limit: int, error: BaseException = GPU_ERROR):
    """A forward that fits `limit` images, and the sizes it was tried with."""
    tried: list[int] = []

    def forward(some: slice) -> torch.Tensor:
        tried.append(some.stop - some.start)
        if tried[-1] > limit:
            raise error
        return torch.arange(some.start, some.stop)

    return forward, tried


def test_what_does_not_fit_is_halved_once_and_for_all_with_a_sentence(capsys):
    stage, (forward, tried) = Portions("drawing images", remedy="Take another"), scarce(3)
    assert stage.run(forward, 11, together=8, device=CPU).tolist() == list(range(11))
    assert tried == [8, 4, 2, 2, 2, 2, 2, 1]
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in out] == ["drawing images"] * 2
    assert (
        "8 images together; from now on 4" in out[0]
        and "4 images together; from now on 2" in out[1]
    )
    tried.clear()
    assert stage.run(forward, 4, together=8, device=CPU).tolist() == list(range(4))
    assert tried == [2, 2] and not capsys.readouterr().out


def test_where_one_image_is_too_much_the_remedy_is_a_paragraph():
    stage, (forward, _) = (
        Portions("decoding images", remedy="Take another base"),
        scarce(0, real_error()),
    )
    with pytest.raises(
        OutOfMemory, match="decoding images: out of memory with a single image on cpu. Take another"
    ) as e:
        stage.run(forward, 3, together=1, device=CPU)
    assert paragraph(e.value) == str(e.value) and "\n" not in str(e.value)


def test_other_errors_and_those_of_an_inner_stage_pass():
    for error in (RuntimeError("shapes differ"), OutOfMemory("decoding images: ...")):
        forward, tried = scarce(0, error)
        with pytest.raises(type(error), match=str(error)):
            Portions("drawing images", remedy="").run(forward, 4, together=4, device=CPU)
        assert tried == [4]


def test_nothing_asked_is_nothing_done():
    forward, tried = scarce(1)
    assert len(Portions("x", remedy="").run(forward, 0, together=4, device=CPU)) == 0 and tried == [
        0
    ]


@pytest.fixture(scope="module")
def base(tiny_base) -> Base:
    return load_base(weights=str(tiny_base))


def test_the_vae_sees_no_more_than_its_budget_and_makes_the_same(base, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (7, 2, 32, 32), dtype=torch.uint8, generator=draw)
    latents = torch.randn(7, *base.latent_shape, generator=draw)
    moments, decoded = base.moments(images), base.images(latents)
    assert decoded.float().std() > 1
    sizes: list[int] = []
    for network in (base.vae.encoder, base.vae.decoder):
        network.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    monkeypatch.setattr("cmrgen.base.frozen.ENCODED", 2 * 32**2)
    monkeypatch.setattr("cmrgen.base.frozen.DECODED", 3 * 32**2)
    torch.testing.assert_close(base.moments(images), moments, atol=1e-4, rtol=1e-4)
    assert (base.images(latents).int() - decoded.int()).abs().max() <= 1
    assert sizes == [2, 2, 2, 1, 3, 3, 1]


def test_prompts_go_through_the_tower_in_portions(base, monkeypatch):
    words = [f"Male, age in {k}s" for k in range(5)]
    whole, sizes = base.embed(words), []
    base.text.transformer.register_forward_pre_hook(lambda *_: sizes.append(1))
    monkeypatch.setattr("cmrgen.base.frozen.PROMPTS", 2)
    asked = []
    embedded = base._embedded
    monkeypatch.setattr(base, "_embedded", lambda some: asked.append(len(some)) or embedded(some))
    torch.testing.assert_close(base.embed(words), whole)
    assert asked == [2, 2, 1]


def test_a_network_moves_to_a_device_when_it_is_used_and_back_at_once(tiny_base):
    base = load_base(weights=str(tiny_base))
    vae = base.vae
    base.to("meta")
    assert next(vae.parameters()).device == CPU and base.scale.device.type == "meta"
    assert (
        next(base.unet.parameters()).device.type == "meta" and next(vae.parameters()).device == CPU
    )
    assert next(base.vae.parameters()).device.type == "meta"
    other = load_base(weights=str(tiny_base)).to("cpu", unet=torch.bfloat16)
    assert (
        other.unet.dtype == torch.bfloat16
        and other.to("cpu", unet=torch.float32).unet.dtype == torch.float32
    )


def test_decoding_stays_in_the_vaes_precision_under_autocast(base):
    latents = torch.randn(2, *base.latent_shape, generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(base.images(latents), base.images(latents.clone()))
        under = base.images(latents)
    assert torch.equal(under, base.images(latents))


def test_budgets_are_what_the_table_was_computed_for():
    """docs/results/memory.md is of these; whoever changes one computes it anew
    (benchmarks/memory.py)."""
    budgets = (
        portions.ENCODED,
        portions.DECODED,
        portions.BESIDE_TRAINING,
        portions.DRAWN,
        portions.OFF_GPU,
    )
    assert budgets == (2**18, 2**18, 2**18, 2**20, 2)
