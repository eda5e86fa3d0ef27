"""A cohort met for the first time: whose ids don't match, whose table is of another kind, what its
columns were taken for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate

from cmrdata.cohorts.acdc import ACDC
from cmrdata.cohorts.mnms import MnMs
from cmrdata.cohorts.mnms2 import MnMs2
from cmrdata.cohorts.pooled import Pooled
from cmrdata.cohorts.reading.column_report import REPORT_COLUMNS
from cmrdata.cohorts.ukbb.cohort import UKBB
from cmrdata.pseudonyms import hashed, read_salt
from cmrstudy.experiment import Experiment
from cmrstudy.inspection import inspect_cohort
from support import ROOT
from support.acdc_files import patient
from support.mnms2_files import mnms2
from support.mnms_files import NAME, mnms

VISIT, BEFORE = "2016-05-20", "2012-03-24"
HEADER = "eid,31-0.0,34-0.0,52-0.0,53-2.0,21001-2.0,41270-0.0,41280-0.0\n"


def folders(root: Path, *names: str) -> Path:
    """Folders of participants with files that hold nothing: enough for tables and names."""
    for name in names:
        (root / name).mkdir(parents=True)
        for stem in ("sa", "seg_sa"):
            (root / name / f"{stem}.nii.gz").touch()
    return root


def rows(*ids: str, code: str = "I10") -> str:
    return HEADER + "".join(
        f"{name},0,1950,5,{VISIT},27,{'I500' if k % 3 == 0 else code},{BEFORE}\n"
        for k, name in enumerate(ids)
    )


def cohort(folder: Path, text: str | None = None, **options) -> UKBB:
    if text is not None:
        (folder / "table.csv").write_text(text)
    given = {"root": folder / "root", "table": folder / "table.csv", "salt_root": folder / "salted"}
    return UKBB(**{**given, **options})


WAYS = {
    "plain": "{}",
    "float": "{}.0",
    "zeros": "00{}",
    "blanks": " {} ",
    "quotes": '"{}"',
    "text": "'{}",
    "excel": '="{}"',
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("named", ["{}", "0{}", "{}_2_0", "{}_20209_2_0"])
def test_ids_match_however_folders_and_tables_write_them(tmp_path, way, named):
    ids = ["1201", "1202", "1203"]
    folders(tmp_path / "root", *map(named.format, ids))
    made = cohort(
        tmp_path,
        rows(
            *(
                WAYS[way].format(name).replace('"', '""')
                if way == "excel"
                else WAYS[way].format(name)
                for name in ids
            )
        )
        .replace('=""', '"=""')
        .replace('"",0', '""",0'),
    )
    (tmp_path / "gone.txt").write_text(f"{int(ids[2]):e}\n")
    table, rejected = made.subjects()
    assert rejected.empty and table.diagnosis.tolist() == ["hf", "healthy", "healthy"]
    assert table.subject.tolist() == [hashed(name, read_salt(tmp_path / "salted")) for name in ids]
    fewer, _ = cohort(tmp_path, exclude=tmp_path / "gone.txt").subjects()
    assert fewer.subject.tolist() == table.subject.tolist()[:2]


@pytest.mark.parametrize("matching", [0, 1])
def test_ids_that_do_not_match_are_told_by_pattern(tmp_path, matching):
    folders(tmp_path / "root", "1201", "1202", "1203", "SYN04")
    made = cohort(tmp_path, rows(*["1201"][:matching], "UKB_12345", "UKB_12346"))
    with pytest.raises(ValueError) as error:
        made.subjects()
    text = str(error.value)
    assert f"{matching or 'none'} of the 4 image folders have a row in cohort.table" in text
    assert (
        "4 digits (3), 3 letters 2 digits (1) in cohort.root" in text
        and "3 letters '_' 5 digits" in text
    )
    assert not any(name in text for name in ("1201", "1202", "12345", "SYN04"))
    assert (
        cohort(tmp_path, max_rejected=1).subjects()[1].reason.tolist()
        == ["no row in the table"] * 3
        if matching
        else True
    )


def test_folders_that_may_be_two_people_are_refused(tmp_path):
    folders(tmp_path / "root", "17", "017", "18", "18_2_0")
    with pytest.raises(
        ValueError, match="1 participants' ids stand there with leading zeros and without"
    ):
        cohort(tmp_path, rows("17")).subjects()


def test_a_list_of_withdrawn_participants_that_matches_nobody_says_so(tmp_path):
    folders(tmp_path / "root", "1201", "1202", "1203")
    (tmp_path / "gone.txt").write_text("9001\n9002\n")
    made = cohort(tmp_path, rows("1201", "1202", "1203"), exclude=tmp_path / "gone.txt")
    assert (
        len(made.subjects()[0]) == 3
        and made.notes()[0] == "none of the 2 ids in cohort.exclude has an image folder"
    )
    (tmp_path / "gone.txt").write_text("90" + "00001\n90" + "00002\n")
    with pytest.raises(
        ValueError,
        match="can't be these participants': ids are 7 digits there, 4 digits in cohort.root",
    ):
        cohort(tmp_path, exclude=tmp_path / "gone.txt").subjects()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            rows("1201", "1202", "1203", code="I10 I509"),
            "the diagnoses of 2 of 3 participants are not understood whole",
        ),
        (
            rows("1201", "1202", "1203").replace(VISIT, "2016"),
            "field 53 .Date of attending assessment centre. is not understood",
        ),
        (
            rows("1201", "1202", "1203").replace("53-2.0", "53-0.0"),
            "field 53 .* of visit 2 not found, so that none of 1 participants",
        ),
        (
            rows("1201", "1202", "1203").replace(BEFORE, "2019-01-01").replace(",I10,", ",I509,"),
            "nobody is case or control .*incident 3",
        ),
        (
            rows("1201", "1202", "1203").replace(BEFORE, "1900-01-01"),
            "of nobody with heart failure it is known whether before the visit",
        ),
    ],
)
def test_a_table_whose_labels_would_mean_nothing_stops_the_study(tmp_path, table, words):
    folders(tmp_path / "root", "1201", "1202", "1203")
    made = cohort(tmp_path, table)
    with pytest.raises(ValueError, match=words) as error:
        made.subjects()
    assert "\n" not in str(error.value) and "120" not in str(error.value).replace(str(tmp_path), "")
    assert len(made.columns()) > 8  # which tell why


def test_settings_name_the_sources_and_nothing_of_paths(tmp_path):
    folders(tmp_path / "root", "1201", "1202", "1203")
    usual = cohort(tmp_path, rows("1201", "1202", "1203")).settings
    assert cohort(tmp_path, source=["hospital"]).settings == usual  # as a list or not
    (tmp_path / "records.csv").write_text("eid,code,date\n1202,I500,2012-01-01\n")
    for change in (
        {"source": ["hospital", "death"]},
        {"level": "main"},
        {"diagnoses": tmp_path / "records.csv"},
    ):
        assert cohort(tmp_path, **change).settings != usual
    assert str(tmp_path) not in str(cohort(tmp_path, diagnoses=tmp_path / "records.csv").settings)
    table, _ = cohort(tmp_path, diagnoses=tmp_path / "records.csv").subjects()
    assert table.case_sources.fillna("").tolist() == ["hospital", "records", ""]


def test_several_tables_are_given_as_a_list_or_pattern(tmp_path):
    folders(tmp_path / "root", "1201", "1202", "1203")
    lines = [line.split(",") for line in rows("1201", "1202", "1203").splitlines()]
    for name, part in (("a.csv", slice(0, 6)), ("b.csv", slice(6, 8))):
        (tmp_path / name).write_text(
            "\n".join(",".join([line[0], *line[max(1, part.start) : part.stop]]) for line in lines)
        )
    for table in ([tmp_path / "a.csv", str(tmp_path / "b.csv")], str(tmp_path / "?.csv")):
        assert cohort(tmp_path, table=table).subjects()[0].diagnosis.tolist() == [
            "hf",
            "healthy",
            "healthy",
        ]
    with pytest.raises(
        FileNotFoundError,
        match=r"cohort.table=.*c.csv: there is no such file; .*Expected is a CSV, TSV or Parquet",
    ):
        cohort(tmp_path, table=[tmp_path / "a.csv", tmp_path / "c.csv"]).subjects()
    with pytest.raises(FileNotFoundError, match="cohort.diagnoses=nowhere: there is no such file"):
        cohort(tmp_path, rows("1201"), diagnoses="nowhere").subjects()


# ---- the challenges


def test_acdcs_info_files_are_accounted_for(tmp_path):
    patient(tmp_path / "acdc", 101)
    patient(
        tmp_path / "acdc",
        102,
        info="ED: 2\nES: 5\nGroup: MINF\nHeight: 184,0 cm\nNbFrame: 8\nWeight: 95 kg\n",
    )
    patient(
        tmp_path / "acdc",
        103,
        info="\ufeffED: 2\nES: last\nGroup: ABC\nHeight: tall\nNbFrame: 8\nWeight: \n",
    )
    made = ACDC(root=tmp_path / "acdc", salt_root=tmp_path / "salted")
    report = made.columns().set_index("field")
    assert list(made.columns()) == list(REPORT_COLUMNS) and set(report.file) == {"Info.cfg"}
    counts = report[["rows", "understood", "missing", "not_understood"]].T.to_dict("list")
    assert (
        counts["ED"] == [3, 3, 0, 0]
        and counts["ES"] == [3, 2, 0, 1]
        and counts["Group"] == [3, 2, 0, 1]
    )
    assert counts["Height"] == [3, 2, 0, 1] and counts["Weight"] == [3, 2, 1, 0]
    assert (
        report.example["Height"] == "a+"
        and "1 is none of DCM, MINF, NOR, HCM, RV" in report.note["Group"]
    )
    table, rejected = made.subjects()
    assert table.bmi.round(2).tolist() == [25.0, 28.06] and len(rejected) == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_mnms_tables_are_accounted_for(tmp_path, delimiter, encoding):
    root = mnms(
        tmp_path / "OpenDataset",
        {
            "SYN001": {},
            "SYN002": {"Sex": "Mujer", "Age": "52 years", "Height": "1,80 m", "Weight": "81,0"},
            "SYN003": {"Sex": "1", "Age": "-1", "Height": "180 cm", "Weight": "eighty"},
        },
    )
    table = pd.read_csv(root / NAME, dtype=str)
    table.to_csv(root / NAME, index=False, sep=delimiter, encoding=encoding)
    made = MnMs(root=root, salt_root=tmp_path / "salted")
    people = made.subjects()[0]
    assert people.sex.fillna("").tolist() == ["F", "", ""] and people.age.fillna(0).tolist() == [
        52,
        52,
        0,
    ]
    assert people.bmi.round(3).fillna(0).tolist() == [25, 25, 0]
    report = made.columns().set_index("field")
    counts = report[["rows", "understood", "missing", "not_understood"]].T.to_dict("list")
    assert (
        counts["sex"] == [3, 1, 0, 2]
        and counts["age"] == [3, 2, 1, 0]
        and counts["weight"] == [3, 2, 0, 1]
    )
    assert (
        report.example["code"] == ""
        and report.column["site"] == "Centre"
        and "SYN" not in report.to_csv()
    )


def test_challenge_tables_that_lack_columns_or_are_of_others_say_so(tmp_path):
    root = mnms(tmp_path / "OpenDataset", {"SYN001": {}, "SYN002": {}})
    table = pd.read_csv(root / NAME, dtype=str)
    table.drop(columns=["Sex", "Unnamed: 0"]).to_csv(root / NAME, index=False)
    report = MnMs(root=root, salt_root=tmp_path / "salted").columns()
    assert report[report.column == ""].note.tolist() == ["column sex not found; sex stays empty"]
    table.assign(**{"External code": ["A1", "A2"]}).to_csv(root / NAME, index=False)
    with pytest.raises(
        ValueError,
        match="none of the 2 patients with images has a row: codes are 3 letters 3 digits .* 1 letter 1 digit",
    ):
        MnMs(root=root, salt_root=tmp_path / "salted").subjects()
    (root / NAME).write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="cannot be read|Excel"):
        MnMs(root=root, salt_root=tmp_path / "salted").subjects()
    root = mnms2(tmp_path / "MnM2", {"001": "NOR", "002": "XYZ"})
    made = MnMs2(root=root, salt_root=tmp_path / "salted")
    assert made.columns().set_index("field").loc[
        "pathology", ["understood", "not_understood", "example"]
    ].tolist() == [
        1,
        1,
        "a+",
    ]
    pool = Pooled(cohorts={"a": made}, of=["a"])
    assert pool.columns().file.tolist() == ["mnms2: dataset_information.csv"] * 3


@pytest.mark.parametrize("kind", [ACDC, MnMs, MnMs2, UKBB])
def test_columns_of_nothing_say_what_is_expected(tmp_path, kind):
    for root in (None, tmp_path, tmp_path / "nowhere"):
        given = {"table": None} if kind is UKBB else {}
        with pytest.raises(FileNotFoundError, match="Expected is"):
            kind(root=root, salt_root=tmp_path / "salted", **given).columns()


# ---- the command


def inspected(folder: Path, *overrides: str) -> Path:
    """The folder of an inspection."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(
            "train",
            overrides=[
                "experiment=inspect",
                "cohort=ukbb",
                f"cohort.root={folder / 'root'}",
                f"data_root={folder / 'data'}",
                "volumes=false",
                *overrides,
            ],
            return_hydra_config=True,
        )
    HydraConfig.instance().set_config(cfg)
    inspect_cohort(Experiment(cfg, run, build=instantiate))
    return run


def test_inspect_writes_and_prints_what_was_understood(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    names = [f"12{k:02d}" for k in range(24)]
    folders(tmp_path / "root", *names)
    (tmp_path / "table.csv").write_text(
        rows(*names).replace(f"1207,0,1950,5,{VISIT},27", f"1207,2,1950,5,{VISIT},[b]fat")
    )
    run = inspected(
        tmp_path, f"cohort.table={tmp_path / 'table.csv'}", "cohort.source=[hospital,death]"
    )
    report = pd.read_csv(run / "columns.csv", keep_default_na=False)
    assert list(report) == list(REPORT_COLUMNS)
    assert report.set_index("field").loc[
        "31-0.0", ["rows", "understood", "not_understood", "example"]
    ].tolist() == [
        24,
        23,
        1,
        "9",
    ]
    printed = capsys.readouterr().out
    assert "Columns in use" in printed and "[a]a+" in printed  # no markup
    assert "- diagnoses (death): field 40001" in printed and "- site: field 54" in printed
    assert {"subjects.csv", "rejected.csv", "columns.csv"} <= {path.name for path in run.iterdir()}
    assert (
        "case_sources" in pd.read_csv(run / "subjects.csv")
        and "12" + "07" not in (run / "columns.csv").read_text()
    )


@pytest.mark.slow  # seconds
def test_inspect_of_a_table_that_is_refused_tells_why(tmp_path, capsys):
    folders(tmp_path / "root", "1201", "1202", "1203")
    (tmp_path / "table.csv").write_text(rows("1201", "1202", "1203", code="I10 I509"))
    with pytest.raises(ValueError, match="not understood whole"):
        inspected(tmp_path, f"cohort.table={tmp_path / 'table.csv'}")
    printed = capsys.readouterr().out
    assert "Columns in use" in printed and "hospital: 2 participants unclear" in printed
    report = pd.read_csv(tmp_path / "run" / "columns.csv").set_index("field")
    assert report.loc["41270-0.0", ["not_understood", "example"]].tolist() == [2, "A99 A999"]


def test_everybody_rejected_gives_the_reasons(tmp_path, capsys):
    for name in ("1201", "1202"):
        folders(tmp_path / "root", name)
        (tmp_path / "root" / name / "seg_sa.nii.gz").unlink()
    (tmp_path / "table.csv").write_text(rows("1201", "1202"))
    with pytest.raises(ValueError, match="no usable subject; .*rejected.csv has the reasons"):
        inspected(tmp_path, f"cohort.table={tmp_path / 'table.csv'}")
    assert "no seg_sa.nii.gz" in " ".join(capsys.readouterr().out.split())
    assert len(pd.read_csv(tmp_path / "run" / "rejected.csv")) == 2


@pytest.mark.slow
def test_the_command_ends_with_a_paragraph_and_a_status(tmp_path):
    folders(tmp_path / "root", "1201", "1202", "1203")
    (tmp_path / "table.csv").write_text(rows("UKB_12345", "UKB_12346"))
    ended = subprocess.run(
        [
            sys.executable,
            str(ROOT / "train.py"),
            "experiment=inspect",
            "cohort=ukbb",
            f"cohort.root={tmp_path / 'root'}",
            f"cohort.table={tmp_path / 'table.csv'}",
            f"data_root={tmp_path / 'data'}",
            f"run_dir={tmp_path / 'run'}",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "ids are 4 digits in cohort.root, 3 letters '_' 5 digits in the table" in ended.stderr
