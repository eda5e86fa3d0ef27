"""Plan to images: batches follow the plan's positions, so an interrupted set continues to the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import ControlNetModel, DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor, nn
from tqdm import tqdm

from cmrdata import runs
from cmrdata.runs import write_atomic
from cmrdata.store import Store, Writer
from cmrgen.base import Base, as_control, load_base, weights_hash
from cmrgen.diffusion import denoise, guided, row_noise, sample
from cmrgen.plan import check, sweep

SAMPLERS = {"ddim": DDIMScheduler, "dpmpp": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}


@dataclass
class Generator:
    """A base with a trained ControlNet. `facts` are the training run's: cohort, fields, fingerprints."""

    base: Base
    controlnet: ControlNetModel
    facts: dict[str, Any]

    def to(self, device: torch.device | str) -> Generator:
        self.base.to(device)
        self.controlnet.to(device)
        return self

    @torch.no_grad()
    def images(
        self,
        masks: Tensor,
        *,
        prompts: list[str],
        seeds: list[int],
        guidance: list[float],
        strength: float = 1.0,
        sampler: str = "unipc",
        steps: int = 8,
    ) -> Tensor:
        """(B, 2, P, P) uint8 images for (B, 2, ., .) masks; image k depends on its own mask, prompt and seed only."""
        device = self.base.device
        context, empty = self.base.embed(prompts), self.base.embed([""])
        noise = row_noise(seeds, self.base.latent_shape).to(device)
        with embedded_once(self.controlnet, as_control(masks, self.base.pixels).to(device)) as control:

            def predict(x: Tensor, t: Tensor, words: Tensor) -> Tensor:
                repeated = control if len(x) == len(control) else torch.cat([control, control])
                return denoise(
                    self.base.unet, self.controlnet, x, t, context=words, control=repeated, strength=strength
                )

            steered = guided(predict, prompt=context, empty=empty, scale=torch.tensor(guidance, device=device))
            latents = sample(steered, noise, scheduler=scheduler(sampler, self.base.schedule), steps=steps)
        return self.base.images(latents)


@contextmanager
def embedded_once(controlnet: ControlNetModel, control: Tensor) -> Iterator[Tensor]:
    """The mask's embedding depends on neither time nor prompt: inside this block the network takes it ready-made."""
    embedding = controlnet.controlnet_cond_embedding
    controlnet.controlnet_cond_embedding = nn.Identity()
    try:
        yield embedding(control)
    finally:
        controlnet.controlnet_cond_embedding = embedding


def scheduler(name: str, schedule: dict[str, Any]) -> Any:
    """A diffusers scheduler of the base's noise schedule."""
    if name not in SAMPLERS:
        raise ValueError(f"sampler.name is {name!r}; it takes {', '.join(SAMPLERS)}")
    return SAMPLERS[name].from_config({k: v for k, v in schedule.items() if not k.startswith("_")})


def save_generator(controlnet: ControlNetModel, folder: Path, facts: dict[str, Any]) -> str:
    """Write the ControlNet as a diffusers folder with the facts needed to use it; returns its fingerprint."""
    controlnet.save_pretrained(folder, safe_serialization=True)
    mark = weights_hash(folder)
    write_atomic(folder / "generator.json", json.dumps({**facts, "fingerprint": mark}, indent=1))
    return mark


def load_generator(run: str | Path) -> Generator:
    """The generator of a finished ControlNet run, e.g. runs/controlnet/0; raises when run or base have changed."""
    runs.facts(Path(run))
    folder = Path(run) / "controlnet"
    if not (folder / "generator.json").exists():
        raise FileNotFoundError(
            f"generator={run}: no ControlNet there; give the folder of a `train.py experiment=controlnet` run"
        )
    facts = json.loads((folder / "generator.json").read_text())
    base = load_base(**facts["base"])
    if base.fingerprint != facts["base_fingerprint"]:
        raise ValueError(
            f"generator={run}: its base {facts['base']['weights']} has changed since ({facts['base_fingerprint']} -> "
            f"{base.fingerprint}); restore it, or train the ControlNet again"
        )
    return Generator(
        base=base, controlnet=ControlNetModel.from_pretrained(folder, low_cpu_mem_usage=False), facts=facts
    )


def render(
    plan: pd.DataFrame,
    *,
    cohort: Store,
    generator: Generator,
    folder: Path,
    sampler: str,
    steps: int,
    batch_size: int = 24,
) -> Store:
    """Render every row of the plan into a synthetic set at the cohort's image size; continues an interrupted one."""
    check(plan, cohort.subjects)
    written = plan.to_csv(index=False)
    settings = {
        "cohort": cohort.folder.name,
        "cohort_fingerprint": cohort.fingerprint,
        "sampler": sampler,
        "steps": steps,
        "generator": generator.facts["fingerprint"],
        "batch_size": batch_size,
        "plan": hashlib.sha256(written.encode()).hexdigest()[:16],
    }
    if (folder / "store.json").exists():
        done = Store.open(folder)
        if settings.items() <= done.meta["settings"].items():
            return done  # of other settings: Writer refuses by name
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator.to(device)
    pixels = cohort.meta["pixels"]
    writer = Writer(folder, pixels=pixels, settings=settings)
    write_atomic(folder / "plan.csv", written)
    todo = [plan.iloc[k : k + batch_size] for k in range(0, len(plan), batch_size)][len(writer.parts) :]
    with tqdm(total=len(plan), initial=writer.rows, desc="render", unit="img") as bar:
        for rows in todo:
            masks = torch.from_numpy(cohort.masks[rows.source_row.to_numpy()])
            draw = partial(generator.images, sampler=sampler, steps=steps, strength=float(rows.strength.iloc[0]))
            images = draw(
                masks, prompts=rows.prompt.tolist(), seeds=rows.seed.tolist(), guidance=rows.guidance.tolist()
            )
            writer.append(
                resized(images, pixels).cpu().numpy(),
                masks.numpy(),
                rows.assign(split="synthetic", sampler=sampler, steps=steps),
            )
            bar.update(len(rows))
    return writer.finish(images=len(plan), missing_groups=plan.attrs.get("missing", []))


def render_sweep(
    cohort: Store, generator: Generator, folder: Path, *, sampler: str, steps: int, guidance: float
) -> None:
    """The images of Fig. 3 and 4 beside a set, for evaluate.py to draw."""
    rows = sweep(cohort.index, fields=generator.facts["fields"], guidance=guidance)
    render(rows, cohort=cohort, generator=generator, folder=folder, sampler=sampler, steps=steps)


def resized(images: Tensor, pixels: int) -> Tensor:
    """(B, 2, ., .) uint8 to (B, 2, pixels, pixels), anti-aliased."""
    if images.shape[-1] == pixels:
        return images
    smaller = nn.functional.interpolate(images.float(), size=(pixels, pixels), mode="bilinear", antialias=True)
    return smaller.round().clamp(0, 255).to(torch.uint8)
