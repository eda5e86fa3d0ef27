"""Names of columns: every export's and package's spelling is the same field, and nothing else
is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ukbb_exports import plain, stata, tab

from cmrdata.cohorts.ukbb.columns import TITLES, parse_column, similar

NAMES = {
    ("eid", 0, 0): [
        "eid",
        "f.eid",
        "n_eid",
        "participant.eid",
        "Participant ID",
        "participant id ",
        "F.EID",
        "f_eid",
        "participant_id",
        "Participant.ID",
        '"eid"',
        "\ufeffeid",
        "ｅｉｄ",
    ],
    ("31", 0, 0): [
        "f.31.0.0",
        "31-0.0",
        "X31.0.0",
        "p31",
        "participant.p31",
        "n_31_0_0",
        "Sex",
        "Sex.0.0",
        " SEX",
        "f_31_0_0",
        "31_0_0",
        "X31_0_0",
        "f31_0_0",
        "sex_f31_0_0",
        "sex",
        "p31_i0",
    ],
    ("21003", 2, 0): [
        "f.21003.2.0",
        "21003-2.0",
        "X21003.2.0",
        "p21003_i2",
        "participant.p21003_i2",
        "n_21003_2_0",
        "Age when attended assessment centre | Instance 2",
        "age when attended  assessment centre|instance 2",
        "f21003_i2",
        "age_when_attended_assessment_centre_i2",
        "age_when_attended_assessment_centre_f21003_2_0",
        "Age.when.attended.assessment.centre...Instance.2",
    ],
    ("21001", 2, 0): [
        "BMI.2.0",
        "Body mass index (BMI) | Instance 2",
        "p21001_i2_a0",
        "body_mass_index_bmi_i2",
        "body_mass_index_bmi_f21001_2_0",
        "Body.mass.index..BMI....Instance.2",
    ],
    ("53", 2, 0): [
        "Date of attendance.2.0",
        "ts_53_2_0",
        "Date of attending assessment centre | Instance 2",
        "date_of_attending_assessment_centre_f53_2_0",
        "date_of_attending_assessment_centre_i2",
        "f_53_2_0",
        "53_2_0",
        "f53_i2",
        "X53_2_0",
        "DATE OF ATTENDING ASSESSMENT CENTRE - INSTANCE 2",
    ],
    ("23104", 2, 0): ["body_mass_index_bmi_f23104_2_0", "23104-2.0"],
    ("41270", 0, 7): [
        "diagnoses_icd10_f41270_0_7",
        "diagnoses_icd10_a7",
        "f.41270.0.7",
        "41270-0.7",
        "X41270.0.7",
        "s_41270_0_7",
        "p41270_a7",
    ],
    ("41270", 0, 0): [
        "participant.p41270",
        "Diagnoses - ICD10",
        "diagnoses_icd10",
        "Diagnoses...ICD10",
        "diagnoses_icd10_f41270_0_0",
    ],
    ("41280", 0, 258): [
        "participant.p41280_a258",
        "Date of first in-patient diagnosis - ICD10 | Array 258",
        "date_of_first_inpatient_diagnosis_icd10_a258",
        "Date.of.first.in.patient.diagnosis...ICD10...Array.258",
    ],
    ("131354", 0, 0): [
        "date_i50_first_reported_heart_failure",
        "p131354",
        "Date.I50.first.reported..heart.failure.",
    ],
    ("40001", 1, 0): ["Underlying (primary) cause of death: ICD10 | Instance 1", "40001-1.0"],
    ("20002", 2, 3): ["20002-2.3", "noncancer_illness_code_selfreported_f20002_2_3"],
    ("21000", 0, 0): ["Ethnic background | Instance 0", "p21000_i0"],
    ("22189", 0, 0): ["Townsend deprivation index at recruitment", "p22189"],
    ("54", 3, 0): ["UK Biobank assessment centre | Instance 3", "54-3.0"],
    ("52", 0, 0): ["Month of birth", "p52"],
    None: [
        "",
        "label",
        "hesin.eid",
        "p",
        "f.31",
        "31",
        "p31_i",
        "31-0",
        "Sex of baby",
        "participant.",
        "eid2",
        "Instance 2",
        "years_since_f53_2_0",
        "log_bmi_f21001_2_0",
        "f.31.0.0.x",
        "31-0.0_x",
        "rs53_2_0",
        "icd9_f41270_0_0",
        "53_2",
        "id",
        "IID",
    ],
}


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for key, names in NAMES.items() for name in names]
)
def test_every_spelling_of_a_column_is_parsed(name, key):
    assert parse_column(name) == key


@given(st.integers(1, 200_000).map(str), st.integers(0, 3), st.integers(0, 400))
def test_spellings_are_parsed_for_any_field(field, instance, array):
    for spelling in (tab, plain, stata):
        assert parse_column(spelling(field, instance, array)) == (field, instance, array)
    assert parse_column(f"participant.p{field}_i{instance}_a{array}") == (field, instance, array)


@given(st.text(max_size=60))
def test_any_text_is_a_column_or_none(text):
    key = parse_column(text)
    assert key is None or (isinstance(key[0], str) and key[1] >= 0 and key[2] >= 0)


def test_every_title_is_that_of_its_field():
    for title, field in TITLES.items():
        assert parse_column(title)[0] == field
        for spelling in (
            title.upper(),
            title.replace(" ", "."),
            title.replace(" ", "_").lower(),
            f"  {title}  ",
        ):
            assert parse_column(spelling)[0] == field


@pytest.mark.parametrize(
    ("field", "names", "name"),
    [
        ("53", ["label", "years_since_f53_2_0"], "years_since_f53_2_0"),
        ("53", ["date_attending_centre"], "date_attending_centre"),
        ("31", ["sex_male", "x"], "sex_male"),
        ("31", ["31"], "31"),
        ("21001", ["bmi_at_imaging"], "bmi_at_imaging"),
        ("41270", ["ukb_41270_array_0"], "ukb_41270_array_0"),
        ("31", ["unisex", "label", "131"], None),
        ("53", ["date of birth", "assessment"], None),
    ],
)
def test_what_looks_like_a_field_is_found(field, names, name):
    assert similar(field, names) == name
