"""The model card of an exported generator: what it was made of, how it is used, what it may be used
for.

A card is public: it shows the facts named here and no others, so nothing about single participants
can reach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cmrdata.axes import BMI
from cmrgen.base.phases import EVEN, PAPER
from cmrgen.base.weights import KINDS
from cmrgen.prompts import DISEASE, FIELDS, SEX, prompt
from cmrgen.render.sampler import Sampler

# kind of base -> its licence's tag on the hub, its name and its text
LICENCES = {
    "sd21": (
        "openrail++",
        "CreativeML OpenRAIL-M in its Stable Diffusion 2 version (Open RAIL++-M)",
        "https://github.com/Stability-AI/stablediffusion/blob/main/LICENSE-MODEL",
    ),
    "sd15": (
        "creativeml-openrail-m",
        "CreativeML OpenRAIL-M",
        "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
    ),
}
FEW = 10  # smaller group counts are not printed
WORDS = {
    "sex": f"{' or '.join(SEX.values())}",
    "age": "age in 60s (the decade)",
    "bmi": f"{', '.join(BMI.values)}, each followed by BMI",
    "diagnosis": f"healthy, or with {', '.join(DISEASE.values())}",
}

CARD = """---
{header}---

# Cardiac MRI from a segmentation mask and a sentence

A ControlNet on {base}. It draws a short-axis cine slice at end-diastole (ED) and
end-systole (ES) from a mask and a prompt. The folder loads in diffusers as it is, with transformers for the text encoder.

## Use

```python
{example}```

**Mask.** Two label maps of {pixels} x {pixels} pixels, ED and ES of the same slice: 0 background, 1 left ventricle, 2
myocardium, 3 right ventricle; resize yours by nearest neighbour. The control image is label / 3 with the channels ED, ES,
ED. The frame is that of the training slices, centred on the heart{field}.

**Prompt.** Clauses joined by ", " in this order, an unknown one left out, e.g. "{prompt}":

{words}

The empty prompt was trained too and is what the pipeline's guidance steers away from. The project's own
`generate.py` can steer away from the base without ControlNet instead (`sampler.guides=both`): masks are followed more
closely then.

**Image.** {channels} A CPU `torch.Generator` seeded with s starts
from the noise that the project's own `generate.py` takes for seed s.

## Training data

| | |
|---|---|
{data}

Only images of the training split were used. The folder holds no image, no mask and no identifier of a participant.

## Training

{training}
## Licences

- The code that made this: Apache-2.0.
- The base: {licence}.
- The data: these weights were fitted to images of the cohort named above. Whether and to whom they may be given is ruled by
  that cohort's own terms, which this card does not replace.

## Intended use and limits

For research on balanced training data and fairness of cardiac image analysis. The images are synthetic: say so wherever they
are shown, and never count them as patients.

- Not a medical device, and not for diagnosis or any decision about a person.
- It repeats what its cohort shows: scanners, protocol, demographics, and the errors of its masks and labels.
- An attribute in the prompt gives the look that goes with it in the training data, not an effect of that attribute.
- Groups with few training subjects are drawn from few examples. Copies of training images cannot be excluded without an audit.
- Outside the masks, sizes and words above, anything may come out. There is no safety checker: those are trained on
  photographs.
"""

EXAMPLE = """import numpy as np
import torch
from diffusers import {imports}

folder = "."  # this folder, or its name on the hub
{load}

y, x = np.mgrid[:{pixels}, :{pixels}] / {pixels} - 0.5


def heart(radius):  # a drawing in place of a segmentation
    mask = np.where(np.hypot(x + 0.12, 1.2 * y) < 0.14, 3, 0)
    mask[np.hypot(x, y) < 0.14] = 2
    mask[np.hypot(x, y) < radius] = 1
    return mask


ed, es = heart(0.10), heart(0.06)
control = torch.from_numpy(np.stack([ed, es, ed])).float()[None] / 3
image = pipe(
    "{prompt}",
    image=control,
    num_inference_steps={steps},
    guidance_scale={guidance},
    generator=torch.Generator().manual_seed(0),
    output_type="np",
).images[0]
{read}
"""
READ = {  # how the image's channels are ED and ES, in words and in the example
    PAPER: (
        "Channels ED, ES, ED: average the first and the third.",
        "ed_image, es_image = (image[..., 0] + image[..., 2]) / 2, image[..., 1]",
    ),
    EVEN: (
        "Channels ED, ES and the mean of both: what the third adds to the mean of the first two "
        "goes to each by a third.",
        """red, green, blue = np.moveaxis(image, -1, 0)
ed_image, es_image = (x + (blue - (red + green) / 2) / 3 for x in (red, green))""",
    ),
}

WHOLE = "pipe = StableDiffusionControlNetPipeline.from_pretrained(folder)"
BRANCH = """controlnet = ControlNetModel.from_pretrained(folder, subfolder="controlnet")
pipe = StableDiffusionControlNetPipeline.from_pretrained("{name}", controlnet=controlnet, safety_checker=None)
pipe.scheduler = {scheduler}.from_pretrained(folder, subfolder="scheduler")"""


def card_of_generator(
    facts: Mapping[str, Any],
    *,
    pixels: int,
    channels: str,
    whole: bool,
    sampler: Sampler,
    command: str,
    metrics: Mapping[str, Any],
) -> str:
    """README.md of an exported folder.

    Args:
        facts: the training run's, see `cmrgen.render.generator.Generator`.
        pixels: the side of the base's images.
        channels: of them, see cmrgen.base.phases.
        whole: the folder holds the base too.
        sampler: whose scheduler, steps and guidance the example has.
        command: how the ControlNet was trained.
        metrics: those that are floats are shown.
    """
    name, tag, licence = _base(facts)
    image_text, read = READ[channels]
    fields = facts.get("fields", FIELDS)
    words = prompt(
        pd.Series({"sex": "M", "age": 72, "bmi_band": "normal", "diagnosis": "hf"}), fields=fields
    )
    scheduler = sampler.solver().__name__
    load = WHOLE if whole else BRANCH.format(name=name, scheduler=scheduler)
    imports = (
        ["StableDiffusionControlNetPipeline"]
        if whole
        else ["ControlNetModel", "StableDiffusionControlNetPipeline", scheduler]
    )
    example = EXAMPLE.format(
        imports=", ".join(imports),
        load=load,
        pixels=pixels,
        prompt=words,
        steps=sampler.steps,
        guidance=float(sampler.guidance),
        read=read,
    )
    return CARD.format(
        header=_header(name, tag),
        base=name or "a small latent diffusion model",
        example=example,
        channels=image_text,
        pixels=pixels,
        field=f", {facts['fov_mm']:g} mm wide" if "fov_mm" in facts else "",
        prompt=words,
        words="\n".join(f"- {field}: {WORDS[field]}" for field in fields),
        data=_data(facts),
        training=_training(facts, command=command, metrics=metrics),
        licence=licence,
    )


def _base(facts: Mapping[str, Any]) -> tuple[str, str, str]:
    """Name of the base on the hub ("" if it has none), its licence's tag there and its licence in
    words."""
    origin = facts.get("base", {})
    if (kind := origin.get("kind")) not in LICENCES:
        return (
            "",
            "other",
            "made from scratch by the same code, so under the terms of the data it was trained on",
        )
    weights, (tag, name, text) = str(origin.get("weights")), LICENCES[kind]
    # a folder or file of ours is nobody else's
    on_hub = weights.count("/") == 1 and not Path(weights).exists()
    inherited = "its use restrictions hold for this ControlNet too and must be passed on"
    return weights if on_hub else KINDS[kind].hubs[0], tag, f"[{name}]({text}); {inherited}"


def _header(name: str, tag: str) -> str:
    """Front matter as huggingface.co reads it; a base that is not published there cannot be its
    base_model."""
    header = {
        "license": tag,
        **({"base_model": name} if name else {"license_name": "terms-of-the-training-data"}),
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["controlnet", "diffusers", "medical", "cardiac-mri", "synthetic-data", "fairness"],
    }
    return yaml.safe_dump(header, sort_keys=False)


def _data(facts: Mapping[str, Any]) -> str:
    rows = {
        "cohort": facts.get("cohort"),
        "training images": facts.get("training_images"),
        "draws of one image in a pass over them, at most": facts.get("max_repeats"),
        "their size": _size(facts.get("pixels"), facts.get("fov_mm")),
        "fields in the prompt": ", ".join(facts.get("fields", FIELDS)),
    }
    for group, count in facts.get("groups", {}).items():
        rows[f"training subjects, {group}"] = count if count >= FEW else f"fewer than {FEW}"
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value is not None)


def _size(pixels: int | None, fov_mm: float | None) -> str | None:
    """The resolution behind the base's pixels: what was learnt has no more detail."""
    if not pixels:
        return None
    return f"{pixels} x {pixels} pixels" + (
        f" of {fov_mm / pixels:.3g} mm, {fov_mm:g} mm wide" if fov_mm else ""
    )


def _training(facts: Mapping[str, Any], *, command: str, metrics: Mapping[str, Any]) -> str:
    numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
    marks = {"ControlNet": facts.get("fingerprint"), "base": facts.get("base_fingerprint")}
    rows = [f"| {name} | {value:.5g} |" for name, value in numbers.items()]
    rows += [f"| fingerprint of the {name} | `{mark}` |" for name, mark in marks.items() if mark]
    how = f"```\n{command}\n```\n\n" if command else ""
    return how + ("\n".join(["| | |", "|---|---|", *rows]) + "\n" if rows else "")
