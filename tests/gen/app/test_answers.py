"""What the page answers, without a browser."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from cmrdata.store import Store

needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="needs the extra app")


@needs_gradio
def test_without_judges_the_page_says_why(run: Path, cohort: Store, tmp_path: Path, monkeypatch):
    from cmrgen.app import answers
    from cmrgen.app.studio import Studio, open_studio

    def fails(self: Studio, scratch: Path) -> None:
        raise ValueError("none of sex, age varies among the training rows; add subjects")

    monkeypatch.setattr(Studio, "train_critics", fails)
    studio = open_studio(run, data_root=cohort.folder.parent, device="cpu")
    preparation = answers.Preparation(studio, tmp_path)
    assert "getting ready" in preparation.state
    preparation.begin()
    assert preparation.done.wait(30)
    assert (
        preparation.state
        == "No judges: none of sex, age varies among the training rows; add subjects"
    )


@needs_gradio
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"age": "old"}, "age is 'old'; give a number, or nothing"),
        ({"seed": "-1"}, "seed is '-1'; give a whole number"),
        ({"seed": "²"}, "seed is '²'"),
        ({"steps": None}, "steps is empty"),
        ({"guidance": None}, "guidance is empty"),
    ],
)
def test_controls_that_hold_no_number_are_named(change, told):
    from cmrgen.app import answers

    given = {"sex": "", "age": "", "bmi": "22,5", "diagnosis": "hf", "seed": " 7 "}
    given |= {"steps": 3, "guidance": 2, "guides": "both"}
    wish = answers.wish_of(**given)
    assert (wish.sex, wish.age, wish.bmi, wish.seed) == (None, None, 22.5, 7)
    with pytest.raises(ValueError, match=re.escape(told)):
        answers.wish_of(**given | change)


@needs_gradio
def test_what_nobody_foresaw_is_a_sentence_here_and_a_traceback_in_the_terminal(capsys):
    from cmrgen.app import answers

    def fails() -> None:
        raise KeyError("row 7")

    *kept, said = answers.safely(fails, [None, None])()
    assert "this should not happen (KeyError)" in said and "row 7" not in said
    assert all(isinstance(of, dict) and "value" not in of for of in kept)  # gr.skip()
    assert "Traceback" in capsys.readouterr().err
