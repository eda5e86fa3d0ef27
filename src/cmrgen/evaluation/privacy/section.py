"""What the report says of safety: whether the set holds copies of training images, and whether its
generator gives away who taught it."""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd

from cmrdata.disk import write_atomic
from cmrdata.store import Store
from cmrgen.evaluation.fidelity.backbones import kept_features
from cmrgen.evaluation.judges import Evaluation, domain_backbone
from cmrgen.evaluation.privacy import display
from cmrgen.evaluation.privacy.audit import TooFewPeople, memorisation_audit, write_private
from cmrgen.evaluation.privacy.membership import generator_attack
from cmrgen.evaluation.privacy.verdicts import membership_verdict
from cmrgen.render.generator import check_cohort, facts_of, load_generator
from cmrstudy.report import Section, write_table

TITLE = "Is the set safe to share?"


def audit_section(
    evaluation: Evaluation, *, generator: str | None, base_weights: str | None = None, seed: int
) -> Section:
    """Is the set safe to share? Real images go to folder/private and nowhere else.

    Args:
        evaluation: the set and its cohort.
        generator: a run folder, whose losses are also attacked; None: no attack.
        base_weights: where that generator's base now lies, if it has moved.
        seed: of everything drawn.
    """
    cohort, synthetic_set, folder = evaluation.cohort, evaluation.synthetic_set, evaluation.folder
    by = domain_backbone(evaluation.networks)

    def embed(store: Store, rows: np.ndarray) -> np.ndarray:
        return kept_features(store, rows, by, places=evaluation.places(store, "features"))

    try:
        audit = memorisation_audit(
            cohort, synthetic_set, embed, seed=seed, device=evaluation.device, scratch=folder
        )
    except TooFewPeople as error:  # all else of the report stands
        reason = f"Nothing can be said of copies: {str(error).partition(': ')[2]}."
        return Section(TITLE, warnings=[reason], answers=[reason])
    write_private(audit, cohort, synthetic_set, folder / "private")
    tests, sources = display.audit_tests(audit.tests), display.audit_sources(audit.sources)
    write_table(tests, folder, "audit_tests")
    write_table(display.audit_groups(audit.groups), folder, "audit")
    write_table(sources, folder, "audit_sources")
    tables, verdicts = [tests, display.audit_of_whole_set(audit.groups), sources], audit.verdicts
    if generator:
        attack = _attack(evaluation, generator, base_weights, seed=seed)
        shown = display.membership_attack(attack)
        write_table(shown, folder, "membership")
        whole = attack[attack.group == "all"]
        tables.append(shown._replace(frame=whole))
        verdicts = [*verdicts, membership_verdict(whole.iloc[0].to_dict())]
    verdict = {
        "set": synthetic_set.fingerprint,
        "date": time.strftime("%Y-%m-%d"),
        "verdicts": verdicts,
    }
    write_atomic(folder / "audit.json", json.dumps(verdict, indent=1))
    return Section(
        TITLE,
        [
            *verdicts,
            "Tests compare the set with held-out people group by group, with one image of each "
            "source subject at a time. Each raises a false alarm in at most 5 % of harmless sets "
            "(docs/results/audit.md, which also says how many copies they find). No alarm is no "
            "proof of safety.",
            "The nearest pairs show real images, so they are in the private folder beside this "
            "report and not in it.",
        ],
        tables=tables,
        warnings=audit.notes,
        answers=verdicts,
    )


def _attack(
    evaluation: Evaluation, generator: str, base_weights: str | None, *, seed: int
) -> pd.DataFrame:
    check_cohort(facts_of(generator), evaluation.cohort, named=f"audit_generator={generator}")
    trained = load_generator(generator, base_weights=base_weights)
    return generator_attack(trained.to(evaluation.device), evaluation.cohort, seed=seed)
