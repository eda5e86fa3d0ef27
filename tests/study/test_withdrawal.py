"""The experiment that takes withdrawn participants out of a study: what it leaves and says names
nobody."""

from types import SimpleNamespace

import pandas as pd
import pytest
from omegaconf import OmegaConf

from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.prepare import prepare
from cmrdata.pseudonyms import read_salt
from cmrstudy.withdrawal import withdraw_participants


class Listed(Phantom):
    """A phantom whose people may withdraw; its store is renamed by the salt of `salt_root`."""

    gone: set[str] = set()

    def withdrawn(self):
        return self.gone


@pytest.mark.parametrize("names", [1, 0])
def test_withdrawn_participants_are_removed_counted_and_not_named(
    tmp_path, capsys, monkeypatch, names
):
    monkeypatch.setenv("COLUMNS", "200")
    data, runs = tmp_path / "data", tmp_path / "runs"
    for folder in (data, runs / "set", tmp_path / "run"):
        folder.mkdir(parents=True)
    read_salt(data)
    cohort = Listed(subjects=20, pixels=16)
    cohort.salt_root = data
    store = prepare(cohort, data)
    person = store.subjects.subject[0]
    cohort.gone = {person} if names else {"SYN9999"}
    pd.DataFrame({"subject": [person, "SYN0002"], "row": [0, 1]}).to_csv(
        runs / "set" / "plan.csv", index=False
    )
    cfg = OmegaConf.create(
        {"cohort": {"a": 1}, "data_root": str(data), "preset": {"runs": str(runs)}}
    )
    built = []
    run = SimpleNamespace(
        cfg=cfg, folder=tmp_path / "run", build=lambda node: built.append(node) or cohort
    )
    facts = withdraw_participants(run)
    printed = capsys.readouterr().out
    traces = pd.read_csv(tmp_path / "run" / "withdrawn.csv")
    left = (runs / "set" / "plan.csv").read_text()
    assert built == [{"a": 1}] and person not in printed + traces.to_csv()
    assert list(traces) == ["what", "place", "many", "done"]
    if names:
        assert traces.what.tolist() == ["store", "plan"] and traces.many.tolist() == [1, 1]
        assert facts == {"listed": 1, "places": 2} and "1 withdrawn participants" in printed
        assert person not in left and "SYN0002" in left
        again = prepare(cohort, data)  # the store is opened as it now is, and not made again
        assert person not in set(again.subjects.subject) and again.folder == store.folder
    else:
        assert traces.empty and facts == {"listed": 1, "places": 0} and person in left
        assert "none of the 1 withdrawn participants is in any store" in printed
