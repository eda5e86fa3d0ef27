"""Makes a W&B report of a study: curves, the subgroups of Table 2 by arm, its table, and the lineage.

    python scripts/wandb_report.py --entity <entity> --group table2          a draft in the project, whose address it prints
    python scripts/wandb_report.py --entity <entity> --group table2 --show   the report as JSON; asks no server

It shows what runs with logger=wandb have sent (docs/wandb.md), and needs the package
wandb-workspaces (the extra `loggers`).
"""

from __future__ import annotations

import argparse
from typing import Any

AXES = {
    "sex": ("F", "M"),
    "age": ("below_60", "60_to_70", "from_70"),
    "BMI": ("normal", "overweight", "obese"),
}
SCORE = "test_balanced_accuracy"
CURVES = ("val_balanced_accuracy", "train_loss", "val_loss")


def report(*, entity: str, project: str, group: str, evaluation: str) -> Any:
    """The report, not yet saved.

    Args:
        entity: team or user of W&B.
        project: where the runs are.
        group: of the sweep's runs (WANDB_RUN_GROUP, or the task).
        evaluation: the name of an evaluation, which names its artifacts.

    Returns:
        A wandb_workspaces.reports.v2.Report.
    """
    import wandb_workspaces.reports.v2 as wr

    def runset(job: str, *, groupby: tuple[str, ...] = ()) -> Any:
        return wr.Runset(  # of the report's own project
            name=job,
            filters=f"Group = '{group}' and JobType = '{job}'",
            groupby=list(groupby),
        )

    by_arm = runset("classifier", groupby=("config.arm",))
    curves = [
        wr.LinePlot(
            title=name,
            x="trainer/global_step",
            y=[name],
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            layout=wr.Layout(x=8 * place, y=0, w=8, h=7),
        )
        for place, name in enumerate(CURVES)
    ]
    bars = [
        wr.BarPlot(
            title=f"Balanced accuracy by {axis}",
            metrics=[f"{SCORE}_{axis.lower()}_{band}" for band in bands],
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            range_x=(0, 1),
            layout=wr.Layout(x=8 * place, y=0, w=8, h=8),
        )
        for place, (axis, bands) in enumerate(AXES.items())
    ]
    table = wr.WeavePanelSummaryTable(table_name="table2", layout=wr.Layout(x=0, y=0, w=24, h=10))
    pictures = wr.MediaBrowser(
        title="Where classifiers err, and how sure they are",
        media_keys=["confusion_calibration"],
        num_columns=4,
        layout=wr.Layout(x=0, y=0, w=24, h=12),
    )
    blocks = [
        wr.P("Means over seeds; bands and whiskers are one standard deviation of the seeds."),
        wr.TableOfContents(),
        wr.H2("Does synthesis help?"),
        wr.PanelGrid(runsets=[by_arm], panels=curves),
        wr.H2("Whom does it help?"),
        wr.PanelGrid(runsets=[by_arm], panels=bars),
        wr.H2("Table 2"),
        wr.P("Of the newest evaluation; hide the others. Its versions are the artifact below."),
        wr.PanelGrid(runsets=[runset("evaluate")], panels=[table]),
        wr.WeaveBlockArtifact(
            entity=entity, project=project, artifact=f"table2-{evaluation}", tab="overview"
        ),
        wr.H2("What went wrong?"),
        wr.PanelGrid(runsets=[runset("classifier")], panels=[pictures]),
        wr.H2("What was made from what?"),
        wr.WeaveBlockArtifact(
            entity=entity, project=project, artifact=f"evaluation-{evaluation}.0", tab="lineage"
        ),
    ]
    return wr.Report(
        entity=entity,
        project=project,
        title=f"Debiasing cardiac MRI: {evaluation}",
        description="Made by scripts/wandb_report.py. Numbers of a study on people need its report.html beside them.",
        blocks=blocks,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entity", required=True, help="team or user of W&B")
    parser.add_argument("--project", default="cmr-debias")
    parser.add_argument("--group", default="classifier", help="WANDB_RUN_GROUP of the sweep")
    parser.add_argument("--evaluation", default="study", help="<name> of results/<name>")
    parser.add_argument("--show", action="store_true", help="print the report; save nothing")
    asked = parser.parse_args()
    try:
        made = report(
            entity=asked.entity,
            project=asked.project,
            group=asked.group,
            evaluation=asked.evaluation,
        )
    except ModuleNotFoundError as error:
        parser.exit(1, f"error: {error}; pip install wandb-workspaces\n")
    if asked.show:
        print(made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True, indent=1))
    else:
        made.save(draft=True)
        print(made.url)


if __name__ == "__main__":
    main()
