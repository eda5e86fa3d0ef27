"""The card of a synthetic set: what was asked for, how it was drawn, from whom, and what it may be
used for.

It may be public, so it names no participant, not even by hash, and prints no count of participants
below FEW.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cmrdata.counting import number_of
from cmrdata.store import Store
from cmrgen.plan.repeats import per_person
from cmrgen.plan.rows import is_moved, summary
from cmrgen.publish.model_card import FEW
from cmrstudy.runs import code_version

CARD = """---
{header}---

# Synthetic cardiac MRI: {images:,} ED/ES slice pairs in {groups}

Short-axis cine slices at end-diastole (ED) and end-systole (ES), {pixels} x {pixels} pixels{spacing}, drawn by a ControlNet on a
latent diffusion model from a segmentation mask and a prompt such as "{prompt}". Every image is synthetic; none is a
patient's.

{use}
## How it was made

{made}
## Groups

{table}

Participants: training subjects whose masks were used; fewer than {few} are not counted.{missing}

## From whom

- Masks and prompts are of training subjects of the cohort named above, and of no others: the program refuses a plan
  that names anyone of the validation or test split.
- {people}
- {audit}

## Intended use and limits

For research on balanced training data and fairness of cardiac image analysis.

- Not for diagnosis or any decision about a person. Never count these images as patients.
- An attribute in the prompt gives the look that goes with it in the training data, not an effect of that attribute.
- Images of one participant's mask resemble each other: split by `source` when you divide this set, and never test on it.
- What the cohort lacks (scanners, protocols, ages, pathologies), the set lacks too.
"""

PHANTOM = "The cohort is a phantom: computed hearts, nobody's data."
PEOPLE = """**The masks are segmentations of real participants{moved}.** They carry the shape of a real heart; treat them by that
  cohort's own terms."""

USE = {
    "store": """## Use

```
python train.py experiment=classifier synthetic={images} synthetic_set=<this folder>
```

`index.parquet` has a row per image: the plan's row, source, attributes, prompt, seed, sampler, steps, guidance.
""",
    "png": """## Use

```python
from datasets import load_dataset  # or pandas.read_csv("metadata.csv")

images = load_dataset("imagefolder", data_dir=".", split="train")
```

A PNG's red channel is ED, its green ES (blue repeats ED). `*_mask_file_name` are palette PNGs of the masks it was drawn from:
0 background, 1 left ventricle, 2 myocardium, 3 right ventricle.
""",
    "nifti": """## Use

The folder is an nnU-Net raw dataset: `imagesTr/<row>_<phase>_0000.nii.gz`, `labelsTr/<row>_<phase>.nii.gz` (0 background, 1 left
ventricle, 2 myocardium, 3 right ventricle), `dataset.json`; `metadata.csv` has a row per image pair. Voxels are
{voxel}.
""",
}


def card_of_set(synthetic: Store, *, kind: str = "store", audit: str | None = None) -> str:
    """The README.md of a finished set, as it lies (`kind` store) or exported (png, nifti).

    audit: folder of a finished `evaluate.py audit=true` of this set, whose verdict is then quoted.
    Raises FileNotFoundError when that holds no audit, ValueError when it is of another set.
    """
    rows, settings, fov = synthetic.index, synthetic.meta["settings"], synthetic.meta.get("fov_mm")
    pixels, missing = synthetic.meta["pixels"], synthetic.meta.get("missing_groups") or []
    header = {
        "pretty_name": "Synthetic cardiac MRI",
        "license": "other",
        "license_name": "terms-of-the-cohort",
        "task_categories": ["image-segmentation", "image-classification"],
        "tags": ["synthetic", "cardiac-mri", "controlnet", "medical"],
        "size_categories": [_size(len(rows))],
    }
    towards = " towards mask and prompt" if settings["guides"] == "both" else ""
    facts = {
        "cohort": settings["cohort"].rsplit("-", 1)[0],
        "cohort fingerprint": settings["cohort_fingerprint"],
        "generator": settings["generator"],
        "sampler": (
            f"{settings['sampler']}, {settings['steps']} steps, guidance "
            f"{_range(rows.guidance)}{towards}"
        ),
        "plan": settings["plan"],
        "masks": per_person(rows).replace("one person", "one participant"),
        "set": synthetic.fingerprint,
        "code": synthetic.meta.get("code", "unknown"),
        "card written": f"{time.strftime('%Y-%m-%d')} by {code_version()}",
    }
    voxel = f"{fov / pixels:.3g} mm in the plane" if fov else "of unknown size"
    return CARD.format(
        header=yaml.safe_dump(header, sort_keys=False),
        images=len(rows),
        groups=number_of(rows.group.nunique(), "groups"),
        pixels=pixels,
        spacing=f" of {fov / pixels:.3g} mm" if fov else "",
        prompt=rows.prompt.mode().iloc[0],
        use=USE[kind].format(images=len(rows), voxel=voxel),
        made=_facts(facts),
        table=_groups(rows),
        few=FEW,
        missing=f" Groups without a training subject, left out: {', '.join(missing)}."
        if missing
        else "",
        people=PHANTOM
        if set(rows.get("source", ())) == {"phantom"}
        else PEOPLE.format(moved=", some moved a little" * bool(is_moved(rows).any())),
        audit=_audit(audit, synthetic),
    )


def _groups(rows: pd.DataFrame) -> str:
    lines = ["| group | images | masks | participants |", "|---|---|---|---|"]
    counts = summary(rows)[["group", "images", "masks", "subjects"]].astype(object)
    for group, images, masks, people in counts.itertuples(index=False, name=None):
        counted = f"{masks} | {people}" if people >= FEW else f"| < {FEW}"
        lines.append(f"| {group} | {images} | {counted} |")
    return "\n".join(lines)


def _audit(folder: str | None, synthetic: Store) -> str:
    if folder is None:
        return (
            "Whether an image is a near copy of a training image was not examined for this card "
            "(`evaluate.py audit=true`)."
        )
    path = Path(folder) / "audit.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{folder}: no audit there; run `python evaluate.py audit=true` on this set first"
        )
    verdict = json.loads(path.read_text())
    if verdict["set"] != synthetic.fingerprint:
        raise ValueError(
            f"{path} is an audit of set {verdict['set']}, not of {synthetic.fingerprint}; run it "
            "on this set"
        )
    return " ".join([f"Audit of {verdict['date']}:", *verdict["verdicts"]])


def _facts(facts: Mapping[str, Any]) -> str:
    return "".join(
        ["| | |\n|---|---|\n", *(f"| {name} | {value} |\n" for name, value in facts.items())]
    )


def _range(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _size(n: int) -> str:
    """The hub's classes of size."""
    steps = [
        (1_000, "n<1K"),
        (10_000, "1K<n<10K"),
        (100_000, "10K<n<100K"),
        (1_000_000, "100K<n<1M"),
    ]
    return next((name for most, name in steps if n < most), "n>1M")
