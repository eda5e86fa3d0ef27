"""A base with its trained ControlNet, and the images they draw of masks and prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel
from torch import Tensor

from cmrdata.disk import write_atomic
from cmrdata.store import Store
from cmrgen.base.frozen import Base, as_control
from cmrgen.base.load import load_base
from cmrgen.base.portions import drawing_budget, together
from cmrgen.diffusion import denoise, guided, integrate, row_noise, within
from cmrgen.prompts import EMPTY
from cmrgen.render.sampler import Sampler, embedded_once, reused
from cmrstudy import runs
from cmrstudy.inputs import weights_hash

# Lightning's names
PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
KNOWN_PROMPTS = 1024  # whose embeddings are kept; a plan has dozens
RESTORE = "copy the run again from where it was trained, or train it again"
SHIPPED = "assets/phantom-base"  # the base of the default, wherever this program lies now


@dataclass
class Generator:
    """A base with a trained ControlNet.

    Args:
        base: what it was trained on.
        controlnet: the trained branch.
        facts: of the training run: cohort, fields, fingerprints.
        precision: of the networks' arithmetic while denoising; their weights stay as they are.
        compiled: whether `compile` was called.
        budget: pixels that go through the networks together, by default what cmrgen.base.portions
            says of the device.
    """

    base: Base
    controlnet: ControlNetModel
    facts: dict[str, Any]
    precision: torch.dtype = torch.float32
    compiled: bool = False
    budget: int | None = None

    def to(self, device: torch.device | str) -> Generator:
        self.base.to(device)
        self.controlnet.to(device)
        return self

    def compile(self, **options: Any) -> Generator:
        """Let torch compile the networks in place: minutes at the first batch of each size, for
        GPUs and many images."""
        for network in (self.base.unet, self.controlnet):
            network.compile(**options)
        self.compiled = True
        return self

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """(n, tokens, width) embeddings. Each distinct prompt is embedded once and alone: batches
        do not matter."""
        contexts = self.base.contexts
        if len(contexts.keys() | set(prompts)) > KNOWN_PROMPTS:
            contexts.clear()
        for prompt in dict.fromkeys(prompts):
            if prompt not in contexts:
                contexts[prompt] = self.base.embed([prompt])[0].cpu()
        return torch.stack([contexts[prompt] for prompt in prompts]).to(self.base.device)

    def learn(self, prompts: Sequence[str]) -> None:
        """Embed what a plan says before its first image, so that the text tower takes no memory
        beside the U-Net.

        A plan of more than KNOWN_PROMPTS different ones keeps the tower.
        """
        wanted = list(dict.fromkeys([EMPTY, *prompts]))
        if len(wanted) <= KNOWN_PROMPTS:
            self.embed(wanted)
            self.base.release("text")

    @torch.no_grad()
    def images(
        self,
        masks: Tensor,
        *,
        prompts: Sequence[str],
        seeds: Sequence[int],
        guidance: Sequence[float],
        negatives: Sequence[str] | None = None,
        strength: float | Sequence[float] = 1.0,
        sampler: Sampler,
    ) -> Tensor:
        """(B, 2, P, P) float32 grey levels for (B, 2, ., .) masks; image k depends on the k-th of
        each sequence only.

        They are neither rounded nor stretched; `cmrgen.render.drawing.as_stored` makes pictures of
        them like the cohort's. An image that is not finite becomes black.

        Args:
            masks: labels, at any size.
            prompts: what each image shall show.
            seeds: of each image's noise.
            guidance: a scale per image, in place of the sampler's own.
            negatives: what the images shall not show, else nothing.
            strength: of the mask, for all or per image.
            sampler: how all are drawn.
        """
        n, budget = len(prompts), self.budget or drawing_budget(self.base.device)
        strengths = [strength] * n if isinstance(strength, int | float) else list(strength)

        def decoded(portion: slice) -> Tensor:
            latents = self._latents(
                masks[portion],
                prompts=prompts[portion],
                seeds=seeds[portion],
                guidance=guidance[portion],
                negatives=negatives[portion] if negatives else [EMPTY],
                strengths=strengths[portion],
                sampler=sampler,
            )
            finite = latents.isfinite().flatten(1).all(1)
            return self.base.images(latents.nan_to_num(0, 0, 0)) * finite.view(-1, 1, 1, 1)

        most = together(self.base.pixels, budget)
        return self.base.drawing.run(decoded, n, together=most, device=self.base.device)

    def _latents(
        self,
        masks: Tensor,
        *,
        prompts: Sequence[str],
        seeds: Sequence[int],
        guidance: Sequence[float],
        negatives: Sequence[str],
        strengths: Sequence[float],
        sampler: Sampler,
    ) -> Tensor:
        """Standardised latents of images that go through the networks together; one negative counts
        for all."""
        base, device = self.base, self.base.device
        context, empty = self.embed(prompts), self.embed(negatives)
        noise = row_noise(seeds, base.latent_shape).to(device)
        strength = torch.tensor(list(strengths), device=device)
        mask = as_control(masks, base.pixels).to(device) if any(strengths) else None
        with self._prepared(mask, reuse=sampler.reuse) as (control, begin_step):

            def predict(
                x: Tensor, t: Tensor, context: Tensor, rows: Tensor, steered: Tensor | None
            ) -> Tensor:
                begin_step(len(x))
                of = rows if steered is None else rows[steered]
                branch = {"control": None}
                if control is not None:
                    branch = {"control": control[of], "strength": strength[of]}
                output = denoise(
                    base.unet, self.controlnet, x, t, context=context, steered=steered, **branch
                )
                return output.float()

            scale = torch.tensor(list(guidance), device=device)
            guide = partial(
                guided, predict, context=context, empty=empty, bare=sampler.guides == "both"
            )
            scheduler = sampler.scheduler(base.schedule)
            predictor = within(
                sampler.interval,
                inside=guide(scale=scale),
                outside=guide(scale=torch.ones_like(scale)),
                scheduler=scheduler,
                steps=sampler.steps,
            )
            return integrate(predictor, noise, scheduler=scheduler, steps=sampler.steps)

    @contextmanager
    def _prepared(
        self, control: Tensor | None, *, reuse: int
    ) -> Iterator[tuple[Tensor | None, Callable[[int], None]]]:
        """Inside this block the networks share forwards and compute in `precision`; yields the
        masks as the ControlNet now takes them, and what is told each step's number of rows."""
        with ExitStack() as stack:
            if control is not None:
                control = stack.enter_context(embedded_once(self.controlnet, control))
            begin_step: Callable[[int], None] = _no_reuse
            if reuse > 1:
                sharing = reused(self.base.unet, self.controlnet, every=reuse)
                begin_step = stack.enter_context(sharing)
            if self.precision != torch.float32:
                stack.enter_context(torch.autocast(self.base.device.type, self.precision))
            yield control, begin_step


def _no_reuse(rows: int) -> None:
    """Every step makes its own forwards."""


def blank(images: Tensor) -> Tensor:
    """(B,) whether an image (B, 2, P, P) shows nothing at all: not finite, or lost in the
    decoder."""
    flat = images.flatten(1)
    return ~flat.isfinite().all(1) | (flat.amin(1) == flat.amax(1))


def save_generator(controlnet: ControlNetModel, folder: Path, facts: dict[str, Any]) -> str:
    """Write the ControlNet as a diffusers folder with the facts needed to use it; returns its
    fingerprint."""
    controlnet.save_pretrained(folder, safe_serialization=True)
    mark = weights_hash(folder)
    write_atomic(folder / "generator.json", json.dumps({**facts, "fingerprint": mark}, indent=1))
    return mark


def load_generator(
    run: str | Path, *, base_weights: str | None = None, precision: str = "32-true"
) -> Generator:
    """The generator of a finished ControlNet run, e.g. runs/controlnet/0.

    Args:
        run: the run's folder.
        base_weights: where its base lies now, if it has moved since; it is known by its
            fingerprint.
        precision: one of PRECISIONS.

    Raises FileNotFoundError where there is no generator, or its base is in neither place;
    ValueError for another precision, and where its weights or its base are damaged or have changed.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; it takes {', '.join(PRECISIONS)}")
    facts, folder = facts_of(run), Path(run) / "controlnet"
    if (mark := weights_hash(folder)) != facts["fingerprint"]:
        raise ValueError(
            f"generator={run}: its ControlNet's weights are truncated or not those of this run "
            f"({facts['fingerprint']} -> {mark}); {RESTORE}"
        )
    base = _its_base(facts, run, moved_to=base_weights)
    controlnet = ControlNetModel.from_pretrained(folder, low_cpu_mem_usage=False)
    return Generator(base=base, controlnet=controlnet, facts=facts, precision=PRECISIONS[precision])


def facts_of(run: str | Path) -> dict[str, Any]:
    """What a finished ControlNet run says of its generator, without reading any weights; errors as
    `load_generator`."""
    runs.facts(Path(run))
    path = Path(run) / "controlnet" / "generator.json"
    if not path.exists():
        raise FileNotFoundError(
            f"generator={run}: no ControlNet there; give the folder of a `train.py "
            "experiment=controlnet` run"
        )
    try:
        facts: dict[str, Any] = json.loads(path.read_text())
    except ValueError:
        raise ValueError(f"generator={run}: generator.json is damaged; {RESTORE}") from None
    return facts


def check_cohort(facts: dict[str, Any], cohort: Store, *, named: str) -> None:
    """Raise ValueError unless a generator was trained on this cohort; `named`: it, as in
    generator=runs/controlnet/0."""
    if cohort.fingerprint != (trained := facts["cohort_fingerprint"]):
        raise ValueError(
            f"{named} was trained on {facts['cohort']} ({trained}), but this run's cohort is "
            f"{cohort.folder.name} ({cohort.fingerprint}); give the cohort settings it was "
            "trained with"
        )


def _its_base(facts: dict[str, Any], run: str | Path, *, moved_to: str | None) -> Base:
    """The base that a generator was trained on: where it lies now, if that is said, else where it
    lay then."""
    wanted, faults = facts["base_fingerprint"], []
    own = facts["base"].get("kind", "folder") == "folder"
    for place in (
        [moved_to] if moved_to else dict.fromkeys([facts["base"]["weights"], *[SHIPPED] * own])
    ):
        try:
            base = load_base(**{**facts["base"], "weights": place})
        except (FileNotFoundError, ValueError) as error:
            faults.append(f"{place} is none ({_reason(error)})")
            continue
        if base.fingerprint == wanted:
            return base
        if place == SHIPPED:
            continue
        faults.append(f"{place} has changed since, or is another ({wanted} -> {base.fingerprint})")
    raise FileNotFoundError(
        f"generator={run}: its base is not there: {'; '.join(faults)}. Give the place where it "
        "lies now with base.weights=<folder, file or hub id>, or train the ControlNet again"
    )


def _reason(error: Exception) -> str:
    """The first clause of a message that begins with the setting."""
    return str(error).splitlines()[0].split(": ", 1)[-1].split(". ")[0].split("; ")[0]
