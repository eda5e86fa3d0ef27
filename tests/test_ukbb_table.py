"""Who the people of a UK Biobank table are at a visit, and whether their heart had failed by then."""

import csv
import io
from datetime import date

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ukbb_exports import (
    BEFORE,
    COLUMNS,
    LATER,
    VISIT,
    day_first,
    one,
    person,
    raw,
    read,
    relaxed,
    same,
    stata_date,
    with_time,
)

from cmrdata.cohort import with_groups
from cmrdata.readers.cells import PLACEHOLDERS
from cmrdata.readers.ids import canonical_id
from cmrdata.readers.ukbb_table import read_exclusions, read_table

UNDATED = ("", *PLACEHOLDERS)


@pytest.mark.parametrize(
    ("dates", "visit", "expected"),
    [([], VISIT, "none"), ([], "", "none"),
     ([BEFORE], VISIT, "prevalent"), ([VISIT], VISIT, "prevalent"), ([LATER], VISIT, "incident"),
     ([LATER, BEFORE], VISIT, "prevalent"), ([LATER, LATER], VISIT, "incident"),
     ([BEFORE], "", "unknown"), ([LATER], "", "unknown"), ([BEFORE], "1900-01-01", "unknown"),
     *(([gap], VISIT, "unknown") for gap in UNDATED), *(([gap], "", "unknown") for gap in UNDATED),
     *(([gap, BEFORE], VISIT, "prevalent") for gap in UNDATED), *(([gap, LATER], VISIT, "unknown") for gap in UNDATED)],
)  # fmt: skip
@pytest.mark.parametrize("export", ["table.csv", "rap.csv"])
def test_case_25_26_a_diagnosis_is_before_after_or_at_no_known_time(tmp_path, dates, visit, expected, export):
    row = one(tmp_path, person(("I10", BEFORE), *(("I500", when) for when in dates), visit=visit), export=export)
    assert row.state == expected
    assert row.diagnosis == {"prevalent": "hf", "none": "healthy"}.get(expected)
    known = sorted(when for when in dates if when not in UNDATED)
    assert row["first"] == pd.Timestamp(known[0]) if known else pd.isna(row["first"])


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
@pytest.mark.parametrize("written_as", [same, day_first, with_time, stata_date])
def test_case_25_a_placeholder_makes_nobody_ill_however_it_is_written(tmp_path, placeholder, written_as):
    text = written_as("41280", placeholder)
    row = one(tmp_path, person(("I500", text), ("I219", text)), conditions=["mi"])
    assert (row.state, row.diagnosis, row.conditions) == ("unknown", None, "")
    assert one(tmp_path, person(f131354_0=text), source="first_occurrence", codes="narrow").state == "unknown"


def test_case_26_who_falls_ill_after_the_visit_is_no_control(tmp_path):
    people = {"SYN0001": person(("I500", LATER)), "SYN0002": person()}
    table = read(people, tmp_path)
    assert table.state.tolist() == ["incident", "none"] and table.diagnosis.tolist() == [None, "healthy"]


@pytest.mark.parametrize(
    ("codes", "cases"),
    [("narrow", {"I50", "I509"}), ("standard", {"I50", "I509", "I110", "I132"}),
     ("broad", {"I50", "I509", "I110", "I132", "I255", "I420", "I426"}), (["I42"], {"I420", "I421", "I426"}),
     (["i25.5", "I50*"], {"I255", "I50", "I509"})],
)  # fmt: skip
def test_presets_and_lists_match_by_prefix(tmp_path, codes, cases):
    everything = [
        "I50",
        "I509",
        "I110",
        "I119",
        "I132",
        "I131",
        "I255",
        "I250",
        "I420",
        "I421",
        "I426",
        "I10",
        "J50",
        "I5",
    ]
    people = {f"SYN{k:04d}": person((code, BEFORE)) for k, code in enumerate(everything[:-1])}
    table = read(people, tmp_path, codes=codes)
    assert {code for code, said in zip(everything, table.diagnosis, strict=False) if said == "hf"} == cases


@pytest.mark.parametrize("text", ["I500", "i500", "I50.0", " I 50.0 ", "I50 0", "I50.0 Congestive heart failure", "I50X",
                                  "I50\tHeart failure", "I50"])  # fmt: skip
def test_codes_are_recognised_with_dots_spaces_and_titles(tmp_path, text):
    assert one(tmp_path, person((text, BEFORE)), codes="narrow").state == "prevalent"


@pytest.mark.parametrize(
    "text",
    ["I10,I500", "I10;I500", "I10|I500", "Heart failure", "500", "['I500']", "I", "150.0", "I10 High|I50.0 Heart"],
)
def test_what_is_no_single_code_is_refused_with_its_line(tmp_path, text):
    row = person(("I10", BEFORE), (text, BEFORE))
    with pytest.raises(ValueError, match="line 3: field 41270 holds something that is no ICD-10 code such as I500"):
        read({"SYN0001": person(), "SYN0002": row}, tmp_path)


@pytest.mark.parametrize(
    "cell",
    ['["I10","I500",null,"I48"]', "['I10', 'I500', None, 'I48']", "I10|I500||I48", "[I10, I500, , I48]",
     """["I10 Essential (primary) [x], y","I50.0 Crohn's \\"b\\"", null, "I48 Flutter"]""",
     """['I10 a, b', "I50.0 Crohn's", None, 'I48']""", "I10 Essential, primary|I50.0 Heart|NA|I48.9 Flutter"],
)  # fmt: skip
def test_element_k_belongs_to_date_k(tmp_path, cell):
    header = ["eid", "p53_i2", "p41270", *(f"p41280_a{k}" for k in (3, 1, 0, 2))]  # in any order
    for dates, state, conditions in [((LATER, BEFORE, LATER, LATER), "prevalent", ""), ((BEFORE, LATER, BEFORE, BEFORE), "incident", "af"),
                                     ((BEFORE, "", BEFORE, LATER), "unknown", "")]:  # fmt: skip
        file = io.StringIO()
        csv.writer(file).writerows([header, ["SYN0001", VISIT, cell, *(dates[k] for k in (3, 1, 0, 2))]])
        row = read_table(raw(tmp_path, file.getvalue()), conditions=["af"]).iloc[0]
        assert (row.state, row.conditions) == (state, conditions)


@pytest.mark.parametrize(
    "dates", [f'["{LATER}", null, "{BEFORE}"]', f"{LATER}||{BEFORE}|{BEFORE}", f"['{LATER}', None, '{BEFORE}']"]
)
def test_dates_may_share_a_cell_too(tmp_path, dates):
    file = io.StringIO()
    rows = [
        ["SYN0001", VISIT, "I10|I48|I500", dates],
        ["SYN0002", VISIT, "I500|I48", dates],
        ["SYN0003", VISIT, "I500", ""],
    ]
    csv.writer(file).writerows([["eid", "p53_i2", "p41270", "p41280"], *rows])
    table = read_table(raw(tmp_path, file.getvalue()), conditions=["af"])
    assert table.state.tolist() == ["prevalent", "incident", "unknown"] and set(table.conditions) == {""}


def test_codes_beyond_the_dates_are_undated_and_gaps_keep_their_place(tmp_path):
    path = raw(tmp_path, f"eid,53-2.0,41270-0.0,41270-0.2,41270-0.9,41280-0.2\nSYN0001,{VISIT},,I500,,{BEFORE}\n"
                       f"SYN0002,{VISIT},I500,,,{BEFORE}\nSYN0003,{VISIT},,,I500,{BEFORE}\n")  # fmt: skip
    assert read_table(path).state.tolist() == ["prevalent", "unknown", "unknown"]


def test_arrays_have_any_length(tmp_path):
    for length in (1, 2, 213, 259, 700):
        row = person(*[("I10", LATER)] * (length - 1), ("I500", BEFORE))
        assert {one(tmp_path, row, export=export).state for export in ("r.tab", "rap_short.tsv")} == {"prevalent"}


def test_who_has_an_excluding_code_is_neither_case_nor_control(tmp_path):
    people = {"SYN0001": person(("I500", BEFORE), ("I421", LATER)), "SYN0002": person(("I422", "")), "SYN0003": person(),
              "SYN0004": person(("I500", BEFORE), ("I420", BEFORE))}  # fmt: skip
    table = read(people, tmp_path, without=["I421", "I42.2"])
    assert table.state.tolist() == ["prevalent", "none", "none", "prevalent"]
    assert table.diagnosis.tolist() == [None, None, "healthy", "hf"]
    assert read(people, tmp_path).diagnosis.tolist() == ["hf", "healthy", "healthy", "hf"]


def test_conditions_are_those_asked_for_and_present_at_the_visit(tmp_path):
    row = person(("I48", BEFORE), ("I252", BEFORE), ("I219", LATER), ("I10", BEFORE))
    for asked, found in [((), ""), (("af", "ihd", "mi"), "mi;ihd;af"), (["ihd"], "ihd"), (["af"], "af")]:
        assert one(tmp_path, row, conditions=asked).conditions == found
    for dates in ((LATER,), ("",), ("1900-01-01", LATER)):
        assert one(tmp_path, person(*(("I219", when) for when in dates)), conditions=["mi"]).conditions == ""


def test_first_occurrence_reads_its_field_alone(tmp_path):
    people = {"SYN0001": person(("I500", BEFORE)), "SYN0002": person(f131354_0=BEFORE), "SYN0003": person(f131354_0=LATER),
              "SYN0004": person(f131354_0=BEFORE, visit="")}  # fmt: skip
    for codes in ("narrow", ["I50"], ["I50.*"]):
        table = read(people, tmp_path, source="first_occurrence", codes=codes)
        assert table.state.tolist() == ["none", "prevalent", "incident", "unknown"]
    path = raw(tmp_path, f"eid,53-2.0,131354-0.0\nSYN0001,{VISIT},{BEFORE}\n")
    assert read_table(path, source="first_occurrence", codes="narrow").diagnosis.tolist() == ["hf"]


def test_first_occurrence_goes_with_conditions_of_the_hospitals(tmp_path):
    row = person(("I500", BEFORE), ("I48", BEFORE), f131354_0="")
    told = one(tmp_path, row, source="first_occurrence", codes="narrow", conditions=["af"], without=["I48"])
    assert (told.state, told.diagnosis, told.conditions) == ("none", None, "af")


def test_case_18_each_visit_has_its_own_columns(tmp_path):
    row = person(("I500", "2018-01-01"), f53_3="2019-05-20", f34_0="1950", f52_0="5", f21001_2="24", f21001_3="31", f54_2="1",
                 f54_3="2", f21003_2="66", f21003_3="69")  # fmt: skip
    first, repeat = (one(tmp_path, row, instance=instance) for instance in (2, 3))
    assert (first.state, repeat.state) == ("incident", "prevalent")
    assert (first.bmi, repeat.bmi, first.site, repeat.site) == (24, 31, "1", "2")
    assert repeat.age - first.age == pytest.approx(3, abs=1e-3) and first.visit == pd.Timestamp(VISIT)


def test_case_20_what_is_missing_stays_missing(tmp_path):
    row = one(tmp_path, person(visit=""))
    assert [row[name] for name in ("sex", "site", "ethnicity")] == [None] * 3
    assert row[["age", "bmi", "townsend", "visit", "first"]].isna().all() and row.table_flags == ""
    assert (row.state, row.diagnosis, row.conditions) == ("none", "healthy", "")


BMI = {  # cells: BMI and its flag
    ("21001_2", "26.5"): (26.5, ""),
    ("21001_2", "26.5", "21002_2", "100", "50_2", "180", "23104_2", "30", "21001_0", "31"): (26.5, ""),
    ("21001_2", "", "21002_2", "81", "50_2", "180", "23104_2", "30", "21001_0", "31"): (25, "bmi_from_weight"),
    ("21001_2", "", "12143_2", "81", "12144_2", "180", "23104_2", "30"): (25, "bmi_from_weight"),
    ("21002_2", "100", "12144_2", "180", "23104_2", "30", "21001_0", "31"): (30, "bmi_impedance"),
    ("21002_0", "81", "50_0", "180", "21001_0", "31"): (31, "bmi_instance_0"),
    ("21001_1", "31", "21001_3", "31"): (None, ""),
    ("21001_2", "8.1", "21002_2", "81", "50_2", "180"): (25, "bmi_from_weight"),  # implausible
    ("21001_2", "265", "21002_2", "81", "50_2", "18", "23104_2", "71", "21001_0", "27"): (27, "bmi_instance_0"),
    ("21001_2", "-1", "21002_2", "-3", "50_2", "180"): (None, ""),
    ("21002_2", "81", "50_2", "1.8"): (25, "bmi_from_weight"),  # metres
    ("21001_2", "12"): (12, ""), ("21001_2", "70"): (70, ""), ("21001_2", "70.01"): (None, ""),
}  # fmt: skip


@pytest.mark.parametrize("cells", BMI)
def test_case_20_21_bmi_is_of_the_visit_or_flagged(tmp_path, cells):
    row = one(tmp_path, person(**{f"f{name}": text for name, text in zip(cells[::2], cells[1::2], strict=True)}))
    bmi, flag = BMI[cells]
    assert row.bmi == pytest.approx(bmi) if bmi else pd.isna(row.bmi)
    assert row.table_flags == flag


@pytest.mark.parametrize(
    ("visit", "age"),
    [("2016-05-15", 60), ("2016-05-14", 60 - 1 / 366), ("2016-05-16", 60 + 1 / 365), ("2016-04-30", 60 - 15 / 366),
     ("2016-11-15", 60 + 184 / 365), ("2026-05-15", 70)],
)  # fmt: skip
def test_case_22_age_is_counted_in_birthdays(tmp_path, visit, age):
    row = one(tmp_path, person(f34_0="1956", f52_0="5", f21003_2="44", visit=visit))
    assert row.age == pytest.approx(age, abs=1e-12) and row.table_flags == ""
    assert (row.age >= 60) == (visit >= "2016-05-15")  # no rounding at a band's edge


@given(st.dates(date(1930, 1, 1), date(1972, 12, 31)), st.dates(date(2006, 1, 1), date(2030, 1, 1)))
@relaxed
def test_case_22_whole_years_are_those_of_the_calendar(tmp_path, born, visit):
    row = one(tmp_path, person(f34_0=str(born.year), f52_0=str(born.month), visit=str(visit)))
    assert int(row.age) == visit.year - born.year - ((visit.month, visit.day) < (born.month, 15))


@pytest.mark.parametrize("cells", [{"f34_0": ""}, {"f52_0": ""}, {"f34_0": "-1"}, {"f52_0": "13"}, {"f34_0": "2090"}, {"f34_0": "19"},
                                   {"visit": ""}, {"visit": "2037-07-07"}])  # fmt: skip
def test_case_22_whole_years_stand_in_and_are_flagged(tmp_path, cells):
    row = {"f34_0": "1950", "f52_0": "5", "f21003_2": "66", "f21022_0": "57", "f21003_0": "57", **cells}
    assert one(tmp_path, person(**row))[["age", "table_flags"]].tolist() == [66, "age_whole_years"]
    unknown = one(tmp_path, person(**{**row, "f21003_2": "-1"}))
    assert pd.isna(unknown.age) and unknown.table_flags == ""  # never the age at another time


def test_case_23_25_is_overweight_and_30_obese(tmp_path):
    people = {f"SYN{k}": person(f21001_2=bmi) for k, bmi in enumerate(("24.99", "25", "29.99", "30"))}
    table = read(people, tmp_path).rename_axis("subject").reset_index().assign(source="ukbb")
    assert with_groups(table).bmi_band.tolist() == ["normal", "overweight", "overweight", "obese"]


def test_case_24_non_answers_are_missing_and_townsend_may_be_negative(tmp_path):
    row = one(tmp_path, person(f31_0="-3", f54_2="-1", f21000_0="-3", f21003_2="-1", f21001_2="-1", f22189_0="-5.25"))
    assert [row.sex, row.site, row.ethnicity] == [None] * 3 and pd.isna(row.age) and pd.isna(row.bmi)
    assert row.townsend == -5.25
    row = one(
        tmp_path, person(f31_0="Prefer not to answer", f21000_0="Do not know", f189_0="-1.5", f21003_2="Do not know")
    )
    assert [row.sex, row.ethnicity, row.townsend] == [None, None, -1.5] and pd.isna(row.age)


@pytest.mark.parametrize(
    ("text", "sex"), [("0", "F"), ("1", "M"), ("Female", "F"), ("Male", "M"), ("0.0", "F"), ("NA", None)]
)
def test_sex_0_is_female(tmp_path, text, sex):
    assert one(tmp_path, person(f31_0=text)).sex == sex


def test_ethnicity_is_the_first_answer_and_a_site_is_text(tmp_path):
    cells = {"f21000_0": "-1", "f21000_1": "", "f21000_2": "3001.0", "f54_2": "11025.0"}
    assert one(tmp_path, person(**cells))[["ethnicity", "site"]].tolist() == ["3001", "11025"]
    assert one(tmp_path, person(f21000_0="1001", f21000_2="3001")).ethnicity == "1001"
    assert one(tmp_path, person(f54_2="Cheadle (imaging)")).site == "Cheadle (imaging)"


@pytest.mark.parametrize("month", ["9", "09", "9.0", "September", "sept", "SEP"])
def test_months_are_numbers_or_names(tmp_path, month):
    assert one(tmp_path, person(f34_0="1950", f52_0=month, visit="2016-09-15")).age == 66


def test_case_27_ids_are_canonical_strings(tmp_path):
    assert [canonical_id(name) for name in ("17.0", " 17", 17, 17.0, "SYN0001", "0017")] == ["17"] * 4 + [
        "SYN0001",
        "0017",
    ]
    path = raw(tmp_path, f"eid,53-2.0,41270-0.0,41280-0.0\n 17.0 ,{VISIT},,\n18,{VISIT},,\n019,{VISIT},,\n")
    assert read_table(path).index.tolist() == ["17", "18", "019"]
    table = read_table(path, ids=["18.0", "17", "20"])
    assert table.index.tolist() == ["17", "18"] and table.attrs["rows"] == 3  # in the table's order


def test_participants_left_out_are_not_looked_at(tmp_path):
    people = {"SYN0001": person(("I500", BEFORE)), "SYN0002": person(("???", "???"), f31_0="???")}
    assert read(people, tmp_path, ids={"SYN0001"}).state.tolist() == ["prevalent"]
    nobody = read(people, tmp_path, ids=set())
    assert (
        nobody.empty
        and list(nobody) == COLUMNS
        and nobody.dtypes.equals(read(people, tmp_path, ids={"SYN0001"}).dtypes)
    )


WITHDRAWN = {
    "SYN0001\nSYN0002\n": {"SYN0001", "SYN0002"},
    "eid\r\n 17.0 \r\n\r\n18": {"17", "18"},
    "\ufeffParticipant ID\n17\n": {"17"},
    "f.eid,reason\n17,moved\n18,\n": {"17", "18"},
    "reason\tparticipant.eid\nmoved\t17\n": {"17"},
    "withdrawn\n\"17\"\n": {"17"},
    "17,2020-01-01\n18,2020-01-02": {"17", "18"},
    "": set(), "eid\n": set(), "\n \n": set(),
}  # fmt: skip


@pytest.mark.parametrize("text", WITHDRAWN)
def test_case_30_withdrawn_participants_are_read(tmp_path, text):
    assert read_exclusions(raw(tmp_path, text, "out.csv")) == WITHDRAWN[text]
