"""Tables keep their types on disk, whatever the values look like and however many are missing."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmrdata.tables import TEXT, read_typed, text_columns, typed


def objects(*values: object) -> pd.Series:
    return pd.Series(values, dtype=object)


def back(table: pd.DataFrame, folder) -> pd.DataFrame:
    path = folder / "table.csv"
    path.write_text(table.to_csv(index=False), encoding="utf-8", newline="")
    return read_typed(path, text=text_columns(table))


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        (objects("11025", None, "011"), TEXT, ["11025", None, "011"]),
        (objects(None, None), TEXT, [None, None]),
        (objects("", "x"), TEXT, [None, "x"]),
        (objects(7, "DCM", None), TEXT, ["7", "DCM", None]),
        (objects(0.1, None, 3), float, [0.1, None, 3.0]),
        (objects(1, 2), int, [1, 2]),
        (objects(True, False), bool, [True, False]),
        (objects(True, None), TEXT, ["True", None]),
        (pd.Series(["a", None], dtype="category"), TEXT, ["a", None]),
        (pd.Series([np.nan, np.nan]), float, [None, None]),
        (pd.Series([1, None], dtype="Int64"), "Int64", [1, None]),
    ],
    ids=lambda value: str(value.tolist()) if isinstance(value, pd.Series) else "",
)
def test_a_column_is_numbers_booleans_or_text(column, kind, values):
    made = typed(pd.DataFrame({"x": column})).x
    assert made.dtype == kind
    assert [None if pd.isna(value) else value for value in made] == values
    again = typed(pd.DataFrame({"x": made})).x
    pd.testing.assert_series_equal(again, made)


def test_lists_of_codes_are_empty_and_never_missing(tmp_path):
    table = typed(
        pd.DataFrame({"conditions": objects("", "mi;af", None), "flags": objects(None, None, None)})
    )
    for shown in (table, back(table, tmp_path)):
        assert shown.conditions.tolist() == ["", "mi;af", ""] and shown["flags"].tolist() == [
            "",
            "",
            "",
        ]


def test_the_table_given_is_left_alone():
    table = pd.DataFrame({"site": objects("1", ""), "ef": objects(0.5, None)}, index=[7, 3])
    before = table.copy()
    assert typed(table).index.tolist() == [7, 3]
    pd.testing.assert_frame_equal(table, before)


def test_parts_of_unlike_knowledge_join_to_one_type():
    parts = [
        typed(pd.DataFrame({"site": objects(*site), "ef": objects(*ef)}))
        for site, ef in (((None, None), (None, None)), (("11025", None), (0.5, None)))
    ]
    files = [pd.read_parquet(io.BytesIO(part.to_parquet(index=False))) for part in parts]
    joined = typed(pd.concat(files, ignore_index=True))
    assert joined.site.dtype == TEXT and joined.site[2] == "11025"
    assert joined.ef.dtype == float and joined.ef.notna().tolist() == [False, False, True, False]


NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.none() | st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=6
)
LIKE_NUMBERS = st.sampled_from(
    ["11025", "007", "NA", "nan", "None", "1e5", "True", "-", " ", '"', "a,b", "x\r", "\n"]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(NUMBERS, WORDS, LIKE_NUMBERS), min_size=1, max_size=5))
def test_a_csv_file_gives_back_what_was_written(tmp_path_factory, rows):
    table = pd.DataFrame(rows, columns=["number", "word", "like"])
    table = typed(table.assign(number=table.number.astype(float), count=range(len(rows))))
    found = back(table, tmp_path_factory.mktemp("csv"))
    pd.testing.assert_frame_equal(found, table, check_exact=True)
