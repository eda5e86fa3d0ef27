"""What a run shows on W&B, TensorBoard, MLflow or in CSV files, and what may never get there: ids,
paths, real images."""

from __future__ import annotations

import io
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import OmegaConf

from cmrstudy import lineage, runs

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

Shows = Literal["numbers", "synthetic", "real"]

# where things lie, not what was done
LOCAL_KEYS = ("root", "table", "exclude", "salt_root", "data_root", "logger")
LOCAL_PATH = re.compile(r"""(^|[\s='":,(\[])(/|~|\.\./|\\\\|[A-Za-z]:[\\/])""")
# names of columns
PERSONAL = re.compile(r"(.+_)?(subject|participant|patient|eid|path|file|source_row)")
PERSON = re.compile(r"\b(S[0-9a-f]{16}|SYN\d+)\b")  # as pseudonyms.hashed and the phantom name them
PUBLISHED = ("table1", "table2", "fig3", "fig4")  # of an evaluation, as artifacts
TAGS = {  # tag -> where the config has it
    "cohort": ("cohort", "name"),
    "arm": ("synthetic",),
    "mitigation": ("mitigation", "name"),
    "fold": ("fold",),
    "backbone": ("model", "backbone"),
    "base": ("model", "base", "kind"),
}


def configured(settings: Any, *, run: Path) -> list[Any]:
    """The loggers among the settings of the group `logger`, ready to be instantiated.

    Args:
        settings: of the group; what has a _target_ is a logger, a plain value beside them is ours.
        run: the run's folder, which keeps the id of its W&B run, so that a continued run goes on in
            the same one.
    """
    chosen = [of for of in (settings or {}).values() if OmegaConf.is_dict(of) and "_target_" in of]
    return [_identified(of, run) if of["_target_"].endswith("WandbLogger") else of for of in chosen]


def _identified(of: Any, run: Path) -> Any:
    own = of.get("id") or of.get("version")
    return of if own or of.get("mode") == "disabled" else {**of, "id": lineage.run_id(run)}


def continue_csv(logger: Any, *, step: int, rows: int | None = None) -> None:
    """Gives a CSVLogger what an interrupted attempt left it; it would begin its file anew.

    Args:
        logger: of any kind; others are left alone.
        step: to go on from; earlier rows are kept.
        rows: how many of those there were then, None where nobody counted (`csv_rows`).
    """
    import pandas as pd
    from lightning.pytorch.loggers import CSVLogger

    from cmrdata.disk import write_atomic

    if (
        not isinstance(logger, CSVLogger)
        or not (path := Path(logger.log_dir) / "metrics.csv").exists()
    ):
        return
    earlier = pd.read_csv(path, dtype=str, keep_default_na=False)
    earlier = earlier[earlier.step.astype(int) < step].head(rows)
    writer = logger.experiment  # takes the file away
    if len(earlier):
        write_atomic(path, earlier.to_csv(index=False))
        writer.metrics_keys = list(earlier.columns)


def csv_rows(loggers: Sequence[Any]) -> int | None:
    """Rows that a CSVLogger among `loggers` has written so far; None without one."""
    from lightning.pytorch.loggers import CSVLogger

    for logger in _senders(loggers):
        if isinstance(logger, CSVLogger):
            path = Path(logger.log_dir) / "metrics.csv"
            return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0
    return None


@contextmanager
def one_run() -> Iterator[None]:
    """Ends the W&B run that was started within, as failed after an exception: W&B keeps one run per
    process, and the next job of a multirun would go on writing into it."""
    try:
        yield
    except BaseException:
        _finish(failed=True)
        raise
    _finish(failed=False)


def _finish(*, failed: bool) -> None:
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=int(failed))


def public(config: Any) -> Any:
    """A plain config as it may leave the machine: without LOCAL_KEYS, other paths outside the
    project as <local path>."""
    if isinstance(config, dict):
        return {key: public(value) for key, value in config.items() if key not in LOCAL_KEYS}
    if isinstance(config, list | tuple):
        return [public(value) for value in config]
    return "<local path>" if isinstance(config, str) and LOCAL_PATH.search(config) else config


def tags(config: dict[str, Any]) -> dict[str, str]:
    """What runs are told apart by, where the config has it: the keys of TAGS."""
    found: dict[str, Any] = dict.fromkeys(TAGS, config)
    for tag, keys in TAGS.items():
        for key in keys:
            found[tag] = found[tag].get(key) if isinstance(found[tag], dict) else None
    return {tag: str(value) for tag, value in found.items() if value is not None}


def describe(loggers: Sequence[Any], config: dict[str, Any]) -> None:
    """Give the loggers the `public` part of a plain, resolved config, its `arm` as text to group
    by, and its `tags`."""
    from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

    labels = tags(config)
    settings = {**public(config), **({"arm": labels["arm"]} if "arm" in labels else {})}
    for logger in _senders(loggers):
        logger.log_hyperparams(settings)
        if isinstance(logger, WandbLogger):
            # W&B's limit
            logger.experiment.tags = tuple(f"{tag}:{value}"[:64] for tag, value in labels.items())
        elif isinstance(logger, MLFlowLogger):
            for tag, value in labels.items():
                logger.experiment.set_tag(logger.run_id, tag, value)


def log_table(loggers: Sequence[Any], name: str, frame: pd.DataFrame) -> None:
    """The frame's columns as a wandb.Table, TensorBoard text, MLflow table, or <name>.csv beside a
    CSV log.

    Raises ValueError for a table about single persons (`names_persons`), before any logger has it:
    such a table is a mistake of the code that calls, which a silent omission would hide.
    """
    from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

    from cmrdata.disk import write_atomic
    from cmrstudy.report import Shown, markdown

    if reason := names_persons(frame):
        raise ValueError(
            f"table {name!r} {reason}: it stays on this machine. Log sums over subjects"
        )
    for logger in _senders(loggers):
        if isinstance(logger, WandbLogger):
            cells = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
            logger.log_table(name, columns=[str(column) for column in frame], data=cells)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(name, markdown(Shown(frame, name)))
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_table(logger.run_id, data=frame, artifact_file=f"{name}.json")
        elif isinstance(logger, CSVLogger):
            write_atomic(_beside(logger, f"{name}.csv"), frame.to_csv(index=False))


def log_figure(
    loggers: Sequence[Any],
    name: str,
    picture: Figure | Path | np.ndarray,
    *,
    shows: Shows,
    step: int | None = None,
    allow_real_images: bool = False,
) -> None:
    """A figure, PNG file or (H, W) or (H, W, 3) uint8 array as a picture on every logger, at the
    trainer's `step`.

    `shows`: numbers (charts), synthetic or real images. Raises ValueError for real ones, for a file
    of a private folder, and for a chart with a picture in it, unless `allow_real_images`.
    """
    from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
    from PIL import Image

    if not allow_real_images and (reason := _is_real(picture, shows)):
        raise ValueError(
            f"picture {name!r} {reason}: it stays on this machine; see logger.allow_real_images"
        )
    pixels = _pixels(picture)
    file = f"{name}.png" if step is None else f"{name}-{step:06d}.png"
    for logger in _senders(loggers):
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [pixels], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, pixels, global_step=step, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, pixels, artifact_file=file)
        elif isinstance(logger, CSVLogger):
            Image.fromarray(pixels).save(_beside(logger, file))


def evaluation_boards(loggers: Sequence[Any], folder: Path) -> None:
    """Every reported table of a results folder (those with a .md beside the .csv) and every picture
    of its figures/.

    Its private/ is not looked at. A table about single persons is left out with a warning.
    """
    import pandas as pd

    for path in sorted(folder.glob("*.csv")):
        if path.with_suffix(".md").exists():
            frame = pd.read_csv(path)
            if reason := names_persons(frame):
                warnings.warn(f"{path} {reason}; the loggers don't get it", stacklevel=2)
            else:
                log_table(loggers, path.stem, frame)
    for path in sorted((folder / "figures").glob("*.png")):
        log_figure(loggers, path.stem, path, shows="synthetic")
    if list(loggers) == _senders(loggers) and runs.record(folder):
        _evaluation_artifacts(folder)


def _evaluation_artifacts(folder: Path) -> None:
    """The evaluation in W&B's lineage, and what a paper shows of it as artifacts with versions."""
    import pandas as pd

    config, facts = runs.config(folder), runs.facts(folder)
    trained = [place for place in facts["rests_on"] if (Path(place) / "run.json").exists()]
    lineage.tell(folder, {}, used=[config["synthetic_set"], *trained])
    for name in PUBLISHED:
        tables = [folder / f"{name}.{kind}" for kind in ("csv", "md", "tex")]
        files = [path for path in tables if path.exists()]
        if files and files[0].suffix == ".csv" and names_persons(pd.read_csv(files[0])):
            continue
        files += sorted((folder / "figures").glob(f"{name}_*.png"))
        if files:
            kind = "table" if files[0].suffix == ".csv" else "figure"
            lineage.publish(f"{name}-{config['name']}", kind, files)


def names_persons(frame: pd.DataFrame) -> str:
    """Why a table may be about single persons: a column by its name, or a cell that looks like our
    ids; "" if not."""
    for column in frame:
        if PERSONAL.fullmatch(str(column).lower()):
            return f"has a column {column!r}"
        if (
            frame[column]
            .dropna()
            .astype(str)
            .str.contains(PERSON.pattern.replace("(", "(?:"))
            .any()
        ):
            return f"has subjects in its column {column!r}"
    return ""


def _is_real(picture: Any, shows: Shows) -> str:
    """Why a picture must be taken for one of real hearts; "" if it need not."""
    if shows == "real":
        return "shows real images"
    if isinstance(picture, Path):
        return "is in a private folder" if "private" in picture.parts else ""
    axes = getattr(picture, "axes", ())
    if shows == "numbers" and any(
        image.get_array().ndim == 3 or image.get_cmap().name == "gray"
        for panel in axes
        for image in panel.images
    ):
        return "is called a chart but holds images, so say shows='synthetic' if they are"
    return ""


def _pixels(picture: Any) -> np.ndarray:
    """(H, W, 3) uint8."""
    import numpy as np
    from PIL import Image

    if isinstance(picture, np.ndarray):
        return np.asarray(Image.fromarray(picture).convert("RGB"))
    if isinstance(picture, Path):
        return np.asarray(Image.open(picture).convert("RGB"))
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=120, facecolor="white")
    return np.asarray(Image.open(buffer).convert("RGB"))


def _senders(loggers: Sequence[Any]) -> list[Any]:
    """All loggers in the first process of a run, none in the others."""
    from lightning.pytorch.utilities import rank_zero_only

    return [] if getattr(rank_zero_only, "rank", 0) else list(loggers)


def _beside(logger: Any, file: str) -> Path:
    path = Path(logger.log_dir) / file
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
