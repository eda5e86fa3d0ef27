"""A finished evaluation is replaced by one of the same study that has grown, and by no other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cmrdata.counting import number_of
from cmrdata.disk import fingerprint
from cmrstudy import runs
from cmrstudy.identity import differing
from cmrstudy.inputs import fingerprint_at

if TYPE_CHECKING:
    from omegaconf import DictConfig

ADDING = ("audit", "backbones")  # settings that add to a report and change nothing in it


def has_set(cfg: DictConfig) -> bool:
    """Whether the synthetic set is there, whole."""
    return (Path(cfg.synthetic_set) / "finished.json").exists()


def check_something(finished: Collection[Path], cfg: DictConfig, *, typed: Collection[str]) -> None:
    """Raise FileNotFoundError where there is nothing to evaluate.

    Args:
        finished: folders of finished classifier runs.
        cfg: of the evaluation.
        typed: settings that the command line has.
    """
    if not finished and not has_set(cfg):
        raise FileNotFoundError(
            f"nothing to evaluate: no finished classifier below {cfg.classifiers} and no "
            f"synthetic set in {cfg.synthetic_set}. Run `python train.py -m experiment=classifier "
            "...` or `python generate.py` first"
        )
    if "classifiers" in typed and not Path(cfg.classifiers).is_dir():
        raise FileNotFoundError(f"classifiers={cfg.classifiers}: there is no such folder")


def rests_on(finished: Mapping[Path, runs.Record], synthetic_set: str | Path) -> dict[str, str]:
    """What an evaluation is made from.

    Args:
        finished: folder -> record of the finished runs.
        synthetic_set: its folder; it may not be there.

    Returns:
        Name -> fingerprint, of each run and of the set.
    """
    prints = {folder.as_posix(): fingerprint(run._asdict()) for folder, run in finished.items()}
    return prints | {"synthetic set": fingerprint_at(synthetic_set) or "none"}


def claim_evaluation(request: runs.Request, now: Mapping[str, str]) -> bool:
    """Claim an evaluation's folder.

    Args:
        request: of the command.
        now: what it is made from, of `rests_on`.

    Returns:
        Whether there is something to measure.

    Raises:
        FileExistsError: where the folder holds an evaluation of something else.
    """
    folder, earlier = request.folder, runs.record(request.folder)
    if earlier and earlier.state == "finished" and not request.option("overwrite", False):
        before = earlier.facts["rests_on"]
        other = [line for line in differing(earlier.settings, request.settings) if not _adds(line)]
        other += [
            f"{name} {'has changed' if name in now else 'is gone'}"
            for name in before
            if now.get(name) != before[name]
        ]
        if other:
            raise FileExistsError(
                f"{folder} holds an evaluation of something else: {runs.few(other)}. "
                "overwrite=true replaces it, another name= keeps both"
            )
        new = [number_of(len(now) - len(before), "more runs")] * (len(now) > len(before))
        new += differing(earlier.settings, request.settings)
        code = earlier.facts["code"], runs.code_version()
        new += [f"code {code[0]} -> {code[1]}"] * (code[0] != code[1])
        if not new:
            print(f"{folder}: nothing has changed since it was evaluated; shown again")
            return False
        print(f"{folder}: evaluated before, measured anew ({', '.join(new)})", flush=True)
    runs.begin(request._replace(config={**request.config, "repeatable": True}))
    return True


def _adds(line: str) -> bool:
    """Whether a difference of settings only asks for more: audit false -> true, a backbone's
    weights given."""
    key, _, change = line.partition(" ")
    return key.split(".")[0] in ADDING and change.split(" -> ")[0] in ("False", "None")


def print_evaluation(folder: Path, sentences: Sequence[str]) -> None:
    """Print the main tables of a results folder, what is missing, and where the report is."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    for name in ("table1", "table2", "adherence"):
        if (folder / f"{name}.md").exists():
            console.print(Markdown((folder / f"{name}.md").read_text()))
    for sentence in sentences:
        console.print(sentence, highlight=False)
    console.print(f"\nreport: {folder / 'report.html'}", soft_wrap=True)
