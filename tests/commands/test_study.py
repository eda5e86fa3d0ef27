"""The four commands one after the other on a tiny phantom: what a user runs, in-process."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from cmrstudy import runs
from cmrstudy.memory import OutOfMemory
from support import ROOT

SCOPE = "-cohort.pixels-32-cohort.subjects-200"  # of every name, as the commands below override it
METRICS = ["dice", "sex_accuracy", "bmi_accuracy", "age_accuracy", "diagnosis_accuracy"]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path):
    """Runs `train`, `generate` or `evaluate` with overrides, everything written below one temporary
    folder."""
    folder = tmp_path_factory.mktemp("study")

    def run(script: str, *overrides: str) -> Path:
        common = [
            "preset=smoke",
            f"preset.runs={folder}/runs",
            f"preset.base={tiny_base}",
            f"data_root={folder}/data",
            "cohort.pixels=32",
            "cohort.subjects=200",
        ]
        flags = [o for o in overrides if o.startswith("-")]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("CMR_HOME", str(folder))
            patch.setattr(
                sys,
                "argv",
                [f"{script}.py", *flags, *common, *(o for o in overrides if o not in flags)],
            )
            runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
        return folder

    return run


@pytest.fixture(scope="module")
def study(command) -> Path:
    folder = command("train", "experiment=controlnet")
    command("generate")
    command("train", "-m", "experiment=classifier", "synthetic=0,36,only", "seed=range(2)")
    command("evaluate", "name=tiny", "resamples=100", "permutations=40")
    return folder


def test_the_controlnet_run_leaves_a_generator_previews_and_a_small_checkpoint(study):
    run = study / "runs" / f"controlnet{SCOPE}" / "0"
    assert (run / "controlnet" / "diffusion_pytorch_model.safetensors").exists()
    assert list((run / "previews").glob("*.png"))
    assert (pd.read_csv(run / "draws.csv").draws <= 20 * (1 + 1e-9)).all() and runs.facts(run)[
        "max_repeats"
    ] == 20
    made = study / "runs" / f"synthetic{SCOPE}" / "0"
    trained = study / "runs" / "classifier" / f"synthetic-36{SCOPE}" / "0"
    used = {
        run: {"cohort", "base.weights"},
        made: {"cohort", "generator"},
        trained: {"cohort", "model.weights", "synthetic_set"},
    }
    for folder, inputs in used.items():  # a change of any of them is noticed
        record = runs.record(folder)
        assert record and set(record.inputs) == inputs
        assert all(of["fingerprint"] for of in record.inputs.values())
    groups = pd.DataFrame(runs.facts(made)["groups"])
    assert groups.images.sum() == 36 and groups.most.between(1, 24).all()
    keys = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {key.split(".")[0] for key in keys} == {"controlnet", "average"}


def test_everything_that_the_commands_leave_is_known_as_theirs(study):
    """So that overwrite=true removes it, and nothing of an older run lies beside a new one."""
    for record in sorted(study.glob("**/run.json")):
        _, others = runs._files(record.parent)
        assert not others, [path.relative_to(study).as_posix() for path in others]


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        (("train", "experiment=controlnet", "overwrite=true"), f"runs/controlnet{SCOPE}/0"),
        (("generate", "overwrite=true"), f"runs/synthetic{SCOPE}/0"),
        (("evaluate", "name=tiny", "overwrite=true"), "results/tiny"),
    ],
)
def test_a_run_that_another_process_is_at_work_on_is_left_alone(command, study, given, folder):
    before = sorted((study / folder).rglob("*"))
    with (
        runs.held(study / folder),
        pytest.raises(SystemExit, match="another process is at work on this run; wait for it"),
    ):
        command(*given)
    assert before and sorted((study / folder).rglob("*")) == before


def test_every_arm_and_seed_predicts_the_same_subjects(study):
    tables = {
        p.parent: pd.read_csv(p)
        for p in (study / "runs" / "classifier").glob("*/*/predictions.csv")
    }
    assert len(tables) == 6
    subjects = [tuple(t.subject) for t in tables.values()]
    assert len(set(subjects)) == 1
    assert all(t.probability.between(0, 1).all() for t in tables.values())


def test_the_tables_have_the_agreed_rows_and_columns(study):
    results = study / "results" / "tiny"
    adherence = pd.read_csv(results / "adherence.csv")
    assert list(adherence.columns) == ["metric", "real", "synthetic", "shuffled", "n"]
    assert list(adherence.metric) == METRICS
    table2 = pd.read_csv(results / "table2.csv")
    assert list(dict.fromkeys(table2.arm)) == ["Real", "Real + 36", "Synthetic"]
    assert list(dict.fromkeys(table2.subgroup))[0] == "Overall" and table2.subgroup.nunique() == 9
    assert {"Real - Real", "Real - Synthetic"} == set(pd.read_csv(results / "table1.csv").kind)
    for name in ("table1", "table2", "adherence"):
        assert (results / f"{name}.tex").exists() and (results / f"{name}.md").exists()
    reviewed = (
        "gaps",
        "worst",
        "fairness",
        "operating_point",
        "decision_curve",
        "flow",
        "baseline",
        "checklist",
    )
    assert all((results / f"{name}.csv").exists() for name in reviewed)
    assert set(table2.arm) <= set(pd.read_csv(results / "flow.csv").part)
    assert (
        "given one split, one generator, one set, these 2 seeds"
        in (results / "table2.md").read_text()
    )
    pictures = {p.stem for p in (results / "figures").glob("*.png")}
    assert {"fig1_demographics", "fig_table2_forest", "fig3_prompt_sweep", "fig4_seeds"} <= pictures
    assert (results / "report.html").read_text().count("data:image") >= 5


def test_finished_work_is_reused_and_never_overwritten(command, study, capsys):
    stamp = (study / "runs" / f"synthetic{SCOPE}" / "0" / "images.u8").stat().st_mtime_ns
    command("generate", f"generator={study}/runs/controlnet{SCOPE}/0", "resume=true")
    assert "reused" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="resume=true"):
        command("generate", f"generator={study}/runs/controlnet{SCOPE}/0")
    with pytest.raises(SystemExit, match="plan.count"):
        command("generate", f"name=synthetic{SCOPE}", "plan.count=5", "resume=true")
    assert (study / "runs" / f"synthetic{SCOPE}" / "0" / "images.u8").stat().st_mtime_ns == stamp


def test_figures_that_fail_after_a_set_leave_it_finished_and_are_drawn_alone_next_time(
    command, study, capsys, monkeypatch
):
    made = study / "runs" / "figures"
    asked = [
        "generate",
        f"generator={study}/runs/controlnet{SCOPE}/0",
        "name=figures",
        "plan.count=2",
    ]
    asked += ["sampler.steps=1", "batch_size=2"]

    def scarce(*_, **__):
        raise OutOfMemory("drawing images: out of memory with a single image on cuda:0")

    with monkeypatch.context() as patched:
        patched.setattr("cmrgen.tasks.render_sweep", scarce)
        with pytest.raises(SystemExit, match="drawing images: out of memory"):
            command(*asked)
    assert (
        "2 images, finished, but for the images of Fig. 3 and 4: the same"
        in capsys.readouterr().out
    )
    assert runs.facts(made / "0")["images"] == 2 and runs.record(made / "0").state == "finished"
    stamp = (made / "0" / "images.u8").stat().st_mtime_ns
    command(*asked)
    assert (made / "0" / "images.u8").stat().st_mtime_ns == stamp
    sweep = json.loads((made / "0" / "sweep" / "settings.json").read_text())
    assert sweep["batch_size"] == 2 and (made / "0" / "sweep" / "store.json").exists()
    assert "left" not in runs.facts(made / "0")
    with pytest.raises(SystemExit, match="finished run; resume=true"):
        command(*asked)


def test_bad_input_is_one_paragraph_naming_the_thing(command, study):
    with pytest.raises(SystemExit, match="generator=nowhere|nowhere"):
        command("generate", "generator=nowhere", "name=other")
    with pytest.raises(SystemExit, match="another cohort|trained on"):
        command(
            "generate", f"generator={study}/runs/controlnet{SCOPE}/0", "cohort.seed=5", "name=other"
        )
    with pytest.raises(SystemExit, match="holds 36 images"):
        command("train", "experiment=classifier", "synthetic=99")
    with pytest.raises(SystemExit, match="made from another cohort"):
        command(
            "train",
            "experiment=classifier",
            "synthetic=36",
            "cohort.seed=5",
            f"synthetic_set={study}/runs/synthetic{SCOPE}/0",
        )
    with pytest.raises(SystemExit, match="nothing to evaluate"):
        command("evaluate", "classifiers=nowhere", "synthetic_set=nowhere", "name=none")
    with pytest.raises(SystemExit, match="classifiers=nowhere: there is no such folder"):
        command("evaluate", "classifiers=nowhere", "name=none")
    with pytest.raises(SystemExit, match="base.weights"):
        command("train", "experiment=controlnet", "base.weights=nowhere", "name=other")
    with pytest.raises(SystemExit, match="shard=1/2 with overwrite=true would remove other shards"):
        command("generate", "shard=1/2", "overwrite=true")
    with pytest.raises(SystemExit, match="no training subject belongs to"):
        command(
            "generate",
            f"generator={study}/runs/controlnet{SCOPE}/0",
            "plan.missing=error",
            "name=other2",
        )


def test_a_set_is_shared_and_a_classifier_explained_by_one_command_each(command, study):
    command("train", "experiment=share", "formats=[png,nifti]")
    assert len(list((study / f"runs/share-formats-png+nifti{SCOPE}/0/png/images").iterdir())) == 36
    assert (study / f"runs/share-formats-png+nifti{SCOPE}/0/nifti/dataset.json").exists()
    command(
        "train",
        "experiment=explain",
        f"classifier={study}/runs/classifier/synthetic-0{SCOPE}/0",
        "count=1",
    )
    table = pd.read_csv(study / f"runs/explain-count-1{SCOPE}/0/explain.csv")
    assert {"heart", "LV", "outside"} <= set(table.place) and table.share.dropna().between(
        0, 1
    ).all()
    assert (study / f"runs/explain-count-1{SCOPE}/0/explain_hf.png").exists()


@pytest.mark.slow  # seconds
def test_the_other_plans_and_shards_are_drawn_end_to_end(command, study, tmp_path):
    from cmrdata.store import Store

    generator = f"generator={study}/runs/controlnet{SCOPE}/0"
    command(
        "generate",
        generator,
        "plan=sweep",
        "plan.like=M/70+/obese/hf",
        "name=sweep",
        "sampler.steps=1",
    )
    assert len(Store.open(study / "runs/sweep/0").index.bmi_band.unique()) == 3
    table = pd.read_csv(study / f"runs/synthetic{SCOPE}/0/plan.csv").head(3)[["subject", "prompt"]]
    table.to_csv(tmp_path / "mine.csv", index=False)
    command(
        "generate",
        generator,
        "plan=custom",
        f"plan.path={tmp_path}/mine.csv",
        "name=mine",
        "sampler.steps=1",
    )
    assert Store.open(study / "runs/mine/0").index.prompt.tolist() == table.prompt.tolist()
    halves = [
        "plan=random_prompt",
        "plan.count=4",
        "batch_size=2",
        "sampler.steps=1",
        "resume=true",
        "name=halves",
    ]
    command("generate", generator, *halves, "shard=1/2")
    assert not (study / "runs/halves/0/finished.json").exists()
    command("generate", generator, *halves, "shard=0/2")
    assert (
        len(Store.open(study / "runs/halves/0").index) == 4
        and (study / "runs/halves/0/README.md").exists()
    )


@pytest.mark.slow
def test_processes_started_by_lightning_draw_the_same_bytes(study, tiny_base):
    """The command itself, since Lightning starts it again for each further process."""
    common = [
        "preset=smoke",
        f"preset.runs={study}/runs",
        f"data_root={study}/data",
        "cohort.pixels=32",
    ]
    common += [
        "cohort.subjects=200",
        f"generator={study}/runs/controlnet{SCOPE}/0",
        "plan.count=8",
        "batch_size=2",
    ]
    for name, more in (("one", []), ("two", ["trainer.devices=2", "trainer.accelerator=cpu"])):
        command = [
            sys.executable,
            str(ROOT / "generate.py"),
            *common,
            f"name={name}",
            "sampler.steps=1",
            *more,
        ]
        ended = subprocess.run(command, cwd=study, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr
    one, two = (study / "runs" / name / "0" for name in ("one", "two"))
    for name in ("images.u8", "masks.u8", "index.parquet", "plan.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    again = subprocess.run(command, cwd=study, capture_output=True, text=True, timeout=300)
    # refused by all, and none is left hanging
    assert again.returncode != 0 and "resume=true" in again.stderr
