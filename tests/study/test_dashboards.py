"""What reaches W&B (read back from an offline run), TensorBoard, MLflow and CSV, and what must not:
ids, paths, real images."""

import getpass
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
import wandb
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from torch.utils.data import DataLoader

import cmrgen.training.preview
from cmrcls.run_summary import classifier_boards
from cmrgen.render.sampler import Sampler
from cmrgen.training.latents import Latents
from cmrgen.training.preview import PreviewGrid
from cmrstudy import dashboards, figures
from cmrstudy.report import Shown, write_table
from support import ROOT
from support.one_run import predictions
from support.wandb_files import records

CONF = ROOT / "conf"
LOGGERS = ("csv", "wandb", "tensorboard", "mlflow")
PERSON = re.compile(rb"SYN\d{4}|S[0-9a-f]{10}(?![0-9a-f])")


class Tiny(L.LightningModule):
    """A line, so that there are curves."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.line = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        loss = self.line(batch).square().mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, _):
        self.log("val_loss", self.line(batch).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def composed(command: str, *overrides: str) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    plain = OmegaConf.to_container(cfg, resolve=False)
    env = plain.pop("hydra")["job"]["env_set"]
    return {**OmegaConf.to_container(DictConfig(plain), resolve=True), "env": env}


def results(folder: Path) -> pd.DataFrame:
    """A results folder with a table, a picture and what must stay."""
    table = pd.DataFrame(
        {
            "subgroup": ["Overall", "Female"],
            "arm": ["Real", "Real"],
            "balanced_accuracy": [0.5, np.nan],
            "n": [8, 4],
        }
    )
    write_table(Shown(table, "Table 2"), folder, "table2")
    worst = predictions(4)[["subject", "label"]]
    write_table(Shown(worst, "Worst subjects"), folder, "worst")
    (folder / "private").mkdir()
    Image.fromarray(np.full((9, 9), 201, np.uint8)).save(folder / "private" / "pairs.png")
    (folder / "private" / "pairs.csv").write_text("training_subject\nSYN0001\n")
    figures.save(
        figures.image_grid([[np.zeros((8, 8), np.uint8)]]), folder / "figures" / "fig_table2_forest"
    )
    return table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The loggers of conf/ after a short training, its boards and an evaluation's."""
    home = tmp_path_factory.mktemp("boards")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for name, value in {
            "WANDB_MODE": "offline",
            "WANDB_SILENT": "true",
            "CMR_UKBB_ROOT": "/data/ukbb",
            "WANDB_DATA_DIR": str(home / "staging"),
        }.items():
            patch.setenv(name, value)
        for name in ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_RUN_GROUP", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        config = composed(
            "train",
            "experiment=classifier",
            "cohort=ukbb",
            "synthetic=2000",
            f"logger=[{','.join(LOGGERS)}]",
            "cohort.exclude=/data/w12345.csv",
            f"synthetic_set={home}/set",
        )
        for name, value in config.pop("env").items():
            patch.setenv(name, value)
        table = results(home / "results")
        with dashboards.one_run():
            loggers = [instantiate(config["logger"][name]) for name in LOGGERS]
            trainer = L.Trainer(
                accelerator="cpu",
                max_epochs=2,
                logger=loggers,
                enable_progress_bar=False,
                log_every_n_steps=1,
                enable_checkpointing=False,
                enable_model_summary=False,
                default_root_dir=home,
                callbacks=[
                    LambdaCallback(
                        on_fit_start=lambda fitter, _: dashboards.describe(fitter.loggers, config)
                    )
                ],
            )
            loader = DataLoader(torch.ones(4, 1), batch_size=2)
            trainer.fit(Tiny(str(home)), loader, loader)
            classifier_boards(loggers, predictions(), step=trainer.global_step)
            made = np.full((2, 8, 8), 90, np.uint8)
            dashboards.log_figure(loggers, "synthetic", made[0], shows="synthetic", step=4)
            with pytest.raises(ValueError):
                dashboards.log_figure(loggers, "real", made[1], shows="real")
            with pytest.raises(ValueError):
                dashboards.log_table(loggers, "predictions", predictions())
            with pytest.warns(UserWarning, match="worst.csv has a column 'subject'"):
                dashboards.evaluation_boards(loggers, home / "results")
        yield SimpleNamespace(
            home=home, config=config, loggers=dict(zip(LOGGERS, loggers, strict=True)), table=table
        )


@pytest.fixture(scope="module")
def offline(run):
    """The offline W&B run: its folder and the records that `wandb sync` would send."""
    wandb.teardown()  # its process has written all when it is gone
    (folder,) = run.home.glob("**/wandb/offline-run-*")
    (file,) = folder.glob("*.wandb")
    return SimpleNamespace(folder=folder, file=file, records=records(file))


def history(offline) -> list[dict]:
    return [
        {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        for record in offline.records
        if record.HasField("history")
    ]


def test_an_offline_run_tells_what_it_is(offline, run):
    (first, *others) = [record.run for record in offline.records if record.HasField("run")]
    assert (first.project, first.run_group, first.job_type) == (
        "cmr-debias",
        "classifier",
        "classifier",
    )
    assert (
        first.display_name
        == "classifier/synthetic-2000-synthetic_set-set-ukbb/0"
        == f"{run.config['name']}/{run.config['seed']}"
    )
    assert set(others[-1].tags) >= {"cohort:ukbb", "arm:2000", "backbone:resnet18"}


def test_an_offline_run_holds_the_curves_and_the_test_scores(offline):
    lines = history(offline)
    for metric in ("train_loss", "val_loss"):
        values = [line[metric] for line in lines if metric in line]
        assert len(values) == 2 and values[1] < values[0]
    (scores,) = [line for line in lines if "test_balanced_accuracy" in line]
    test = predictions().query("split == 'test'")
    expected = balanced_accuracy_score(test.label, test.probability > 0.5)
    assert scores["test_balanced_accuracy"] == pytest.approx(expected)
    assert {"test_balanced_accuracy_sex_F", "test_balanced_accuracy_age_below_60"} < set(scores)
    assert all(
        re.fullmatch(r"[A-Za-z_]\w*", name) for name in scores if name != "trainer/global_step"
    )


def test_an_offline_run_holds_the_config_without_places(offline):
    told = {
        item.key: json.loads(item.value_json)
        for record in offline.records
        for item in record.config.update
        if not item.key.startswith("_")
    }
    assert (
        told["arm"] == "2000" and told["cohort"]["name"] == "ukbb" and told["model"]["lr"] == 1e-4
    )
    assert (
        told["synthetic_set"] == "<local path>" and "logger" not in told and "data_root" not in told
    )
    for cohort in (told["cohort"], told["data"]["cohort"]):
        assert not {"root", "table", "exclude", "salt_root"} & set(cohort)


def test_an_offline_run_holds_the_tables_and_pictures_and_no_others(offline, run):
    media = offline.folder / "files" / "media"
    tables = {
        path.name.split("_")[0]: json.loads(path.read_text()) for path in media.glob("table/*")
    }
    assert set(tables) == {"table2", "scores", "confusion", "calibration"}
    columns, data = tables["table2"]["columns"], tables["table2"]["data"]
    assert columns == list(run.table)
    assert data == [["Overall", "Real", 0.5, 8], ["Female", "Real", None, 4]]
    pictures = sorted(re.sub(r"_\d+_[0-9a-f]+$", "", path.stem) for path in media.glob("images/*"))
    assert pictures == ["confusion_calibration", "fig_table2_forest", "synthetic"]
    assert {
        path.relative_to(offline.folder / "files").parts[0]
        for path in offline.folder.glob("files/**/*")
    } == {"media"}  # no code, requirements, console log


def test_nothing_personal_or_local_is_in_an_offline_run(offline, run):
    files = [
        path
        for path in (offline.folder / "files").rglob("*")
        if path.suffix != ".png" and path.is_file()
    ]
    assert all(not PERSON.search(path.read_bytes()) for path in [*files, offline.file])
    for record in offline.records:
        for entry in record.artifact.manifest.contents:
            entry.local_path = ""  # for `wandb sync` to find a table; stays here
    sent = b"".join(record.SerializeToString() for record in offline.records)
    assert b"table2" in sent
    for word in (
        str(run.home),
        str(Path.home()),
        "/data",
        "w12345",
        str(CONF.parent),
        sys.executable,
    ):
        assert word.encode() not in sent
    assert not any(
        record.run.host or record.run.HasField("git") or record.run.settings.item
        for record in offline.records
    )
    assert not any(
        record.HasField(kind)
        for record in offline.records
        for kind in ("stats", "environment", "output")
    )


def test_csv_holds_curves_tables_and_pictures(run):
    folder = Path(run.loggers["csv"].log_dir)
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics.val_loss.notna().sum() == 2 and metrics.test_balanced_accuracy.notna().sum() == 1
    pd.testing.assert_frame_equal(pd.read_csv(folder / "table2.csv"), run.table)
    found = {path.name for path in folder.glob("*")}
    assert {
        "scores.csv",
        "confusion.csv",
        "calibration.csv",
        "synthetic-000004.png",
        "fig_table2_forest.png",
    } <= found
    assert not {"predictions.csv", "worst.csv", "pairs.png"} & found
    assert not [path for path in folder.glob("*.csv") if PERSON.search(path.read_bytes())]


def test_tensorboard_holds_curves_tables_and_pictures(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = Path(run.loggers["tensorboard"].log_dir)
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    assert (
        len(events.Scalars("val_loss")) == 2 and "test_balanced_accuracy_sex_M" in tags["scalars"]
    )
    assert {"synthetic", "confusion_calibration", "fig_table2_forest"} == set(tags["images"])
    text = events.Tensors("table2/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| Overall | Real | 0.5 | 8 |" in text
    assert not [path for path in folder.iterdir() if PERSON.search(path.read_bytes())]


def test_mlflow_holds_curves_tables_and_pictures(run, monkeypatch):
    logger = run.loggers["mlflow"]
    monkeypatch.chdir(run.home)
    found = logger.experiment.get_run(logger.run_id)
    assert len(logger.experiment.get_metric_history(logger.run_id, "val_loss")) == 2
    assert found.data.params["arm"] == "2000" and found.data.tags["cohort"] == "ukbb"
    assert not any(
        getpass.getuser() in found.data.tags[tag] for tag in ("mlflow.user", "mlflow.source.name")
    )
    (folder,) = (run.home / "runs" / "mlruns").glob(f"*/{logger.run_id}")
    written = {path.name for path in (folder / "artifacts").iterdir()}
    assert {"table2.json", "confusion.json", "synthetic-000004.png"} <= written
    assert json.loads((folder / "artifacts" / "table2.json").read_text())["columns"] == list(
        run.table
    )
    assert not [
        path for path in folder.rglob("*") if path.is_file() and PERSON.search(path.read_bytes())
    ]


def test_our_modules_leave_the_settings_to_describe():
    """Lightning would log a module's arguments as they are, base.weights=/home/... among them."""
    calls = [
        (path.name, call)
        for path in (CONF.parent / "src").rglob("*.py")
        for call in re.findall(r"save_hyperparameters\((.*?)\)", path.read_text())
    ]
    assert len(calls) > 2
    assert not [name for name, call in calls if "logger=False" not in call]


@pytest.mark.parametrize(
    ("choice", "names"),
    [("csv", {"csv"}), ("wandb", {"wandb"}), ("[csv,mlflow]", {"csv", "mlflow"})],
)
def test_loggers_are_chosen_by_name_one_or_several(choice, names):
    chosen = composed(
        "train", "experiment=classifier", f"logger={choice}", "logger.allow_real_images=true"
    )["logger"]
    assert {name for name, value in chosen.items() if isinstance(value, dict)} == names
    assert chosen["allow_real_images"] is True


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"subject": [1], "n": [3]}),
        pd.DataFrame({"training_subject": ["x"]}),
        pd.DataFrame({"worst": ["mean of S00000000000000af"]}),
        pd.DataFrame({"note": [None, "SYN0001"]}),
    ],
)
def test_a_table_about_persons_is_refused_before_any_logger_has_it(frame, tmp_path):
    log = CSVLogger(tmp_path, name="", version="log")
    with pytest.raises(
        ValueError, match="table 'rows' has .*it stays on this machine. Log sums over subjects$"
    ):
        dashboards.log_table([log], "rows", frame)
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_sums_is_not_taken_for_one_of_persons():
    table = pd.DataFrame(
        {"subjects": [12], "group": ["M/70+/normal/hf"], "source": ["phantom"], "S": ["S12"]}
    )
    assert dashboards.names_persons(table) == ""


def test_a_real_picture_is_refused(tmp_path):
    log, image = CSVLogger(tmp_path, name="", version="log"), np.zeros((8, 8), np.uint8)
    private = tmp_path / "private" / "pairs.png"
    refused = [
        (image, "real"),
        (private, "numbers"),
        (figures.image_grid([[image]]), "numbers"),
        (figures.image_grid([[np.zeros((8, 8, 3), np.uint8)]]), "numbers"),
    ]
    for picture, shows in refused:
        with pytest.raises(
            ValueError, match="picture 'p' .*stays on this machine.*allow_real_images"
        ):
            dashboards.log_figure([log], "p", picture, shows=shows)
    assert list(tmp_path.iterdir()) == []
    dashboards.log_figure([log], "p", image, shows="real", allow_real_images=True)
    assert (tmp_path / "log" / "p.png").exists()


def test_places_are_taken_out_of_a_config_and_the_rest_is_kept():
    config = {
        "cohort": {
            "root": "/data",
            "name": "ukbb",
            "cohorts": {"acdc": {"root": "../acdc", "pixels": 64}},
        },
        "weights": ["/home/x/w.safetensors", "imagenet"],
        "command": "train.py base.weights=/home/x",
        "win": "D:\\x",
        "set": "runs/synthetic/0",
        "band": "M/70+/normal/hf",
        "lr": 1e-4,
        "none": None,
        "logger": {"entity": "me"},
    }
    assert dashboards.public(config) == {
        "cohort": {"name": "ukbb", "cohorts": {"acdc": {"pixels": 64}}},
        "weights": ["<local path>", "imagenet"],
        "command": "<local path>",
        "win": "<local path>",
        "set": "runs/synthetic/0",
        "band": "M/70+/normal/hf",
        "lr": 1e-4,
        "none": None,
    }


def test_tags_are_what_the_config_has():
    assert dashboards.tags(
        {
            "synthetic": 0,
            "cohort": {"name": "acdc"},
            "mitigation": {"name": "groupdro"},
            "fold": None,
            "model": {"base": {"kind": "sd21"}},
        }
    ) == {"cohort": "acdc", "arm": "0", "mitigation": "groupdro", "base": "sd21"}


def test_a_run_ends_as_failed_when_the_job_does(monkeypatch):
    ended = []
    monkeypatch.setitem(
        sys.modules,
        "wandb",
        SimpleNamespace(run=object(), finish=lambda exit_code: ended.append(exit_code)),
    )
    with pytest.raises(KeyError), dashboards.one_run():
        raise KeyError("x")
    with dashboards.one_run():
        pass
    assert ended == [1, 0]
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None))
    with dashboards.one_run():
        pass


def test_a_preview_gives_loggers_nothing_but_what_was_drawn(tmp_path, monkeypatch):
    made = SimpleNamespace(images=lambda masks, **_: torch.full(masks.shape, 77, dtype=torch.uint8))
    monkeypatch.setattr(cmrgen.training.preview, "Generator", lambda **_: made)
    data = Latents.__new__(Latents)
    real = np.full((3, 2, 16, 16), 200, np.uint8)
    data.store = SimpleNamespace(masks=np.ones_like(real), images=real)
    data.pictured = pd.DataFrame({"prompt": ["a"] * 3})
    module = SimpleNamespace(base=SimpleNamespace(pixels=16, release=lambda _: None), best=None)
    trainer = SimpleNamespace(
        datamodule=data,
        sanity_checking=False,
        is_global_zero=True,
        current_epoch=1,
        global_step=5,
        loggers=[CSVLogger(tmp_path, name="", version="log")],
        state=SimpleNamespace(fn="fit"),
        is_last_batch=True,
    )
    sampler = Sampler(steps=1, guides="both")
    PreviewGrid(tmp_path / "previews", sampler=sampler).on_validation_epoch_end(trainer, module)
    (picture,) = (tmp_path / "log").iterdir()
    assert picture.name == "synthetic-000005.png"
    assert (np.asarray(Image.open(picture)) == 77).all()
    assert (tmp_path / "previews" / "epoch-001.png").exists()
    shown = PreviewGrid(tmp_path / "previews", sampler=sampler, allow_real_images=True)
    shown.on_validation_epoch_end(trainer, module)
    assert (tmp_path / "log" / "preview-000005.png").exists()
    trainer.is_last_batch = False  # one of several validations of an epoch
    shown.on_validation_epoch_end(trainer, module)
    assert (tmp_path / "previews" / "epoch-001-step-000005.png").exists()


def test_a_continued_csv_has_every_step_once(tmp_path):
    def logger(*, begins: int | None = None) -> CSVLogger:
        made = CSVLogger(str(tmp_path), name="", version="log")
        if begins is not None:
            dashboards.continue_csv(made, step=begins)
        return made

    first = logger(begins=0)
    for step in range(5):  # a checkpoint was written after step 2
        first.log_metrics({"loss": step / 8}, step=step)
    first.save()
    second = logger(begins=3)
    for step in range(3, 6):
        second.log_metrics({"loss": step / 4, "score": 1.0}, step=step)
    second.save()
    found = pd.read_csv(tmp_path / "log" / "metrics.csv")
    assert found.step.tolist() == [0, 1, 2, 3, 4, 5] and found.loss.tolist() == [
        0,
        1 / 8,
        2 / 8,
        3 / 4,
        1,
        5 / 4,
    ]
    assert found.score.tolist()[3:] == [1.0] * 3 and found.score[:3].isna().all()


def test_rows_of_a_csv_are_counted_without_its_header(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="log")
    path = Path(logger.log_dir) / "metrics.csv"
    assert dashboards.csv_rows([]) is None and dashboards.csv_rows([SimpleNamespace()]) is None
    assert dashboards.csv_rows([logger]) == 0
    path.parent.mkdir(parents=True, exist_ok=True)
    for text, rows in (("", 0), ("a,b\n", 0), ("a,b\n1,2\n", 1), ("a,b\n1,2\n3,4\n", 2)):
        path.write_text(text)
        assert dashboards.csv_rows([SimpleNamespace(), logger]) == rows


def test_a_csv_logger_gets_files_beside_its_log_and_steps_in_their_names(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="log")
    picture = np.full((4, 6), 200, np.uint8)
    dashboards.log_figure([logger], "grid", picture, shows="synthetic", step=7)
    dashboards.log_figure([logger], "grid", picture, shows="synthetic")
    folder = Path(logger.log_dir)
    assert sorted(path.name for path in folder.glob("*.png")) == ["grid-000007.png", "grid.png"]
    with Image.open(folder / "grid.png") as drawn:
        assert drawn.size == (6, 4) and drawn.getpixel((0, 0)) == (200, 200, 200)
    dashboards.log_figure([logger], "real", picture, shows="real", allow_real_images=True)
    assert (folder / "real.png").exists()
    dashboards.log_table([logger], "table1", pd.DataFrame({"a": [1], "b": ["x"]}))
    assert (folder / "table1.csv").read_text() == "a,b\n1,x\n"
