"""Plans from anybody's table: what is left out follows, what is asked for is drawn, what cannot be
drawn is refused."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cmrgen.plan import from_table
from cmrgen.plan.checking import check as check_plan
from cmrgen.prompts import prompt
from support.fake_index import (
    GONE,
    PLANS,
    balanced,
    check,
    copy,
    custom,
    random_prompt,
    without,
)


@pytest.fixture(scope="module")
def plan(index) -> pd.DataFrame:
    return balanced(index, count=12).assign(steps=4).astype(object)


def written(table: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("name", PLANS)
def test_a_written_plan_read_again_is_the_same_plan(index, tmp_path, name, suffix):
    index = without(index, GONE)
    plan = PLANS[name](index)
    if name == "random_prompt":
        plan = random_prompt(index, count=50, per_mask=0, negative="blur, noise")
    again = custom(
        index, path=written(plan, tmp_path / f"plan.{suffix}"), seed=77, guidance=9, strength=0.1
    )
    assert again.to_csv(index=False) == plan.to_csv(index=False)


def test_what_a_table_leaves_out_is_filled_in(index, subjects, train, tmp_path):
    people = train.subject.unique()[:6]
    path = written(pd.DataFrame({"subject": people}), tmp_path / "few.csv")
    plan = custom(index, path=path, seed=4, guidance=3, strength=0.5, negative="blur")
    check(plan, subjects, index)
    own = index.loc[plan.source_row]
    assert (
        own.central.all()
        and own.subject.tolist() == list(people)
        and own.group.tolist() == plan.group.tolist()
    )
    assert plan.prompt.tolist() == [prompt(row) for _, row in own.iterrows()]
    assert plan.seed.tolist() == copy(index, count=6, seed=4).seed.tolist() and "steps" not in plan
    assert (
        set(plan.guidance) == {3.0}
        and set(plan.strength) == {0.5}
        and set(plan.negative) == {"blur"}
    )
    rows = custom(
        index,
        path=written(pd.DataFrame({"source_row": train.index[[5, 3]]}), tmp_path / "rows.parquet"),
    )
    assert rows.subject.tolist() == train.subject.iloc[[5, 3]].tolist()


def test_a_table_of_what_ifs_is_drawn_as_it_says(index, subjects, train, tmp_path):
    source = train[
        train.central & (train.group == "F/60-70/overweight/healthy") & (train.conditions == "")
    ].iloc[0]
    table = pd.DataFrame(
        {
            "subject": source.subject,
            "group": [
                "F/60-70/overweight/healthy",
                "F/60-70/overweight/hf",
                "M/70+/obese/hf",
                "M/60-70/normal/healthy",
            ],
            "steps": [4, 8, 8, 20],
            "angle": [0, 5.5, -10, 0],
        }
    )
    plan = custom(index, path=written(table, tmp_path / "what_if.csv"))
    check(plan, subjects, index)
    assert plan.group.tolist() == table.group.tolist() and plan.borrowed.tolist() == [
        "",
        *[source.group] * 3,
    ]
    assert plan.age.tolist() == [source.age, source.age, 75.0, source.age]
    assert plan.bmi.tolist() == [source.bmi, source.bmi, 34.0, 22.0]
    assert plan.label.tolist() == [0, 1, 1, 0] and plan.sex.tolist() == ["F", "F", "M", "M"]
    assert plan.prompt.tolist() == [prompt(row) for _, row in plan.iterrows()]
    assert (
        plan.steps.tolist() == [4, 8, 8, 20]
        and plan.angle.tolist() == [0, 5.5, -10, 0]
        and (plan.zoom == 1).all()
    )
    said = ["a cat", "F", "obese", "Female"]  # whatever it says
    assert (
        custom(
            index, path=written(table.assign(prompt=said), tmp_path / "said.csv")
        ).prompt.tolist()
        == said
    )
    bands = pd.DataFrame(
        {"subject": source.subject, "age_band": ["70+", "60-70"], "bmi": [31.0, None]}
    )
    plan = custom(index, path=written(bands, tmp_path / "bands.csv"))
    assert plan.age.tolist() == [75.0, source.age] and plan.group.tolist() == [
        "F/70+/obese/healthy",
        "F/60-70/healthy",
    ]
    assert plan.prompt.tolist() == [
        "Female, age in 70s, obese BMI, healthy",
        "Female, age in 60s, healthy",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gudance": 2}, "unknown columns: 'gudance' .for 'guidance'"),
        ({"subject": None}, "neither a column subject nor source_row"),
        ({"subject": {3: ""}}, "'subject' in row 3: fill it in"),
        (
            {"subject": {3: "Jane Doe", 5: "J"}},
            "'subject' in rows 3, 5: the cohort's store has no such subject",
        ),
        ({"subject": {3: "test"}}, "'subject' in row 3: not a labelled training subject"),
        ({"subject": {3: "extra"}}, "'subject' in row 3: not a labelled training subject"),
        (
            {"source_row": {1: 99999}},
            "'source_row' is 99999 in row 1: the cohort's store has rows 0 to",
        ),
        (
            {"source_row": {1: "another's"}},
            "'source_row' is .* in row 1: that mask is another subject's",
        ),
        ({"source_row": {1: "first"}}, "'source_row' is 'first' in row 1: it takes whole numbers"),
        ({"row": 3}, "'row' is 3 in rows 0, 1, 2, 4, 5 and 6 more: rows count from 0"),
        (
            {"group": {2: "X/60-70/obese/hf"}},
            "'group' is 'X/60-70/obese/hf' in row 2: it takes .*sex .F M.",
        ),
        ({"group": {2: ""}}, "'group' is empty in row 2: fill it in"),
        ({"age_band": {0: "60-69"}}, "'age_band' is '60-69' in row 0: it takes <60, 60-70, 70"),
        (
            {"age": 65, "age_band": "70+"},
            "'age_band' is '70.' in rows 0, .*: the row's other columns say '60-70'",
        ),
        (
            {"sex": "M", "group": "F/60-70/obese/hf"},
            "'group' is 'F/60-70/obese/hf'.*other columns say 'M/",
        ),
        ({"sex": {6: "male"}}, "'sex' is 'male' in row 6: it takes F, M"),
        ({"diagnosis": {6: ""}}, "'diagnosis' is empty in row 6: fill it in"),
        ({"age": {6: "sixty"}}, "'age' is 'sixty' in row 6: it takes numbers"),
        ({"guidance": {1: ""}}, "'guidance' is empty in row 1: fill it in"),
        ({"guidance": {2: "nan"}}, "'guidance' is 'nan' in row 2: it takes numbers"),
        ({"seed": {2: "1.5"}}, "'seed' is '1.5' in row 2: it takes whole numbers"),
        ({"steps": {2: 0}}, "'steps' is 0 in row 2: it takes whole numbers from 1"),
        ({"zoom": {2: 1.3}}, "'zoom' is 1.3 in row 2: .*anatomical limits"),
        (
            {"prompt": {2: ""}},
            "'prompt' is '' in row 2: the attributes say .*leave the whole column out",
        ),
        (
            {"borrowed": {2: "F/60-70/obese/hf"}},
            "'borrowed' is 'F/60-70/obese/hf' in row 2: .*say ''",
        ),
        (
            {"source": "elsewhere"},
            "'source' is 'elsewhere' in rows 0, 1, 2, 3, 4 and 7 more: .*say 'phantom'",
        ),
    ],
)
def test_a_fault_is_told_by_column_rows_and_remedy_and_nothing_is_written(
    index, subjects, train, plan, tmp_path, change, words
):
    table = plan[
        ["subject", *(column for column in change if column in plan and column != "subject")]
    ]
    for column, values in change.items():
        table = table.drop(columns=column) if values is None else faulty(table, column, values)
    for split in ("test", "extra"):
        table = table.replace({split: index.subject[index.split == split].iloc[0]})
    table = table.replace({"another's": train.index[train.subject != plan.subject[1]][0]})
    path = written(table.assign(negative=""), tmp_path / "plan.csv")
    with pytest.raises(ValueError, match=f"plan.path=.*plan.csv: .*{words}") as error:
        check_plan(from_table.read_plan(index, path=path), subjects, index)
    assert "Jane" not in str(error.value)  # which may be a name that should not be there
    assert [found.name for found in tmp_path.iterdir()] == ["plan.csv"]


def faulty(table: pd.DataFrame, column: str, values: Any) -> pd.DataFrame:
    """`table` with a value in all rows of a column, or with {row: value} in some."""
    if not isinstance(values, dict):
        return table.assign(**{column: values})
    return table.assign(**{column: [values.get(k, old) for k, old in enumerate(table[column])]})


def test_a_file_that_is_no_table_is_refused(index, tmp_path):
    with pytest.raises(FileNotFoundError, match="plan.path=.*no such file; give a CSV or Parquet"):
        custom(index, path=tmp_path / "none.csv")
    for name, content, words in [
        ("a.xlsx", b"x", "ends in '.xlsx'; give a .csv or .parquet"),
        ("a.parquet", b"not parquet", "cannot be read as parquet"),
        ("a.csv", b"", "cannot be read as csv"),
        ("b.csv", "subject,prompt\nSYN0001,\xe9\n".encode("latin-1"), "cannot be read as csv"),
        ("c.csv", b"subject,prompt\nSYN0001,a\nSYN0002,a,b,c\n", "cannot be read as csv"),
        ("d.csv", b"subject\nSYN0001,a\n", "more fields than its header"),
        ("e.csv", b"subject,prompt\n", "no rows"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"plan.path=.*{words}"):
            custom(index, path=tmp_path / name)


def test_a_table_as_a_spreadsheet_writes_it_is_read(index, train, tmp_path):
    subject = train.subject.iloc[0]
    (tmp_path / "a.csv").write_bytes(
        f"\ufeffsubject,seed,age\r\n {subject} ,{2**61 + 1}, 66 \r\n".encode()
    )
    plan = custom(index, path=tmp_path / "a.csv")
    assert (
        plan.subject.tolist() == [subject]
        and plan.seed.tolist() == [2**61 + 1]
        and plan.age.tolist() == [66.0]
    )
