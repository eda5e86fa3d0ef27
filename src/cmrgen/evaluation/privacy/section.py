"""What a synthetic set's part of the report says: tables and pictures written below a folder,
sections for the page."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cmrdata.disk import write_atomic
from cmrdata.store import Store
from cmrgen.evaluation.adherence.section import (
    adherence_section,
    contraction_section,
    diversity_section,
    sides,
)
from cmrgen.evaluation.fidelity.backbones import features
from cmrgen.evaluation.fidelity.section import fidelity_section as fidelity_section
from cmrgen.evaluation.judges import domain
from cmrgen.evaluation.measured import Measured
from cmrgen.evaluation.privacy import audit as privacy
from cmrgen.evaluation.privacy.membership import attack
from cmrgen.evaluation.privacy.verdicts import membership_verdict
from cmrgen.render.generator import check_cohort, facts_of, load_generator
from cmrstudy.report import Section, write_tables


def shown_sections(found: Measured, *, missing: Sequence[str], seed: int) -> list[Section]:
    """What the images show, how hearts contract in them, how different they are; `missing`: groups
    without an image."""
    if len(found.made.index) < 2:
        told = f"{found.made.folder} holds {len(found.made.index)} images; adherence, contraction and diversity need 2."
        return [Section("Do the images show what they were asked to?", warnings=[told])]
    seen = sides(found)
    return [
        adherence_section(found, seen, missing=missing),
        contraction_section(found, seen),
        diversity_section(found, seed=seed),
    ]


def audit_section(
    found: Measured, *, generator: str | None, base_weights: str | None = None, seed: int
) -> Section:
    """Is the set safe to share? Real images go to folder/private and nowhere else.

    `generator`: also attack the losses of this run, whose base now lies in `base_weights` if it has
    moved.
    """
    cohort, made, folder = found.cohort, found.made, found.folder
    by = domain(found.networks)

    def embed(store: Store, rows: np.ndarray) -> np.ndarray:
        return features(store, rows, by, places=found.places(store, "features"))

    audit = privacy.audit(cohort, made, embed, seed=seed, device=found.device, scratch=folder)
    privacy.write_private(audit, cohort, made, folder / "private")
    for table, name, caption in (
        (audit.tests, "audit_tests", "Audit: tests of the whole set against held-out people"),
        (audit.groups, "audit", "Audit: candidate copies, authenticity and C_T per group"),
        (
            audit.sources,
            "audit_sources",
            "Audit: likeness to the subject whose mask and prompt were used",
        ),
    ):
        table.attrs["caption"] = caption
        write_tables(table, folder, name, caption)
    overall = audit.groups[audit.groups.group == "all"].copy()
    overall.attrs["caption"] = "Audit of the whole set (audit.csv has every group)"
    tables, verdicts = [audit.tests, overall, audit.sources], audit.verdicts
    if generator:
        attacked = _attacked(generator, base_weights, found, seed=seed)
        tables.append(attacked)
        verdicts = [*verdicts, membership_verdict(attacked.iloc[0].to_dict())]
    verdict = {"set": made.fingerprint, "date": time.strftime("%Y-%m-%d"), "verdicts": verdicts}
    write_atomic(folder / "audit.json", json.dumps(verdict, indent=1))
    return Section(
        "Is the set safe to share?",
        [
            *verdicts,
            "Tests compare the set with held-out people group by group, one image of each source subject at a time; each "
            "raises a false alarm in at most 5 % of harmless sets (docs/results/audit.md, which also says how many copies "
            "they find). No alarm is no proof of safety.",
            "The nearest pairs, which show real images, are in the private folder beside this report.",
        ],
        tables=tables,
        warnings=audit.notes,
        answers=verdicts,
    )


def _attacked(
    generator: str, base_weights: str | None, found: Measured, *, seed: int
) -> pd.DataFrame:
    check_cohort(facts_of(generator), found.cohort, named=f"audit_generator={generator}")
    trained = load_generator(generator, base_weights=base_weights)
    table = attack(trained.to(found.device), found.cohort, seed=seed)
    table.attrs["caption"] = "Membership attack by the generator's loss, 95 % intervals"
    write_tables(table, found.folder, "membership", table.attrs["caption"])
    return table[table.group == "all"]
