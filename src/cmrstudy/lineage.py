"""What was made from what, as W&B shows it: generator -> set -> classifier -> evaluation.

A version of an artifact is a card: which run made it and the fingerprints of what it was made from.
Weights, images and predictions stay on this machine. Whoever uses something computes the same card
from its folder, so that W&B recognises the version without being asked; that works offline, too.
"""

from __future__ import annotations

import json
import os
import re
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cmrdata.disk import fingerprint
from cmrstudy import runs

ID = Path("wandb", "id")  # below a run's folder, so that overwrite=true begins a new W&B run
TYPES = {  # task of a run -> type of the artifact
    "base": "base",
    "controlnet": "generator",
    "generate": "synthetic-set",
    "classifier": "classifier",
    "evaluate": "evaluation",
}
LONGEST = 128  # characters of an artifact's name


def run_id(folder: Path) -> str:
    """The id of the W&B run of a run's folder, whose curves a continued run goes on with.

    It is kept in the folder; one that W&B's agent gives (WANDB_RUN_ID) takes its place.
    """
    path = folder / ID
    given = os.environ.get("WANDB_RUN_ID")
    if given or not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{uuid.uuid4().hex}")
        beside.write_text(given or uuid.uuid4().hex[:8])
        if given:
            beside.replace(path)
        else:
            _first(beside, path)
    return path.read_text().strip()


def _first(beside: Path, path: Path) -> None:
    """Puts a file in place unless another process of this run has put its own there."""
    try:
        os.link(beside, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        beside.replace(path)
    beside.unlink(missing_ok=True)


def card(place: str | Path, *, facts: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """What is told of a run: type, name and fingerprint of what it made, and what that was made
    from.

    Args:
        place: its folder, or one within.
        facts: of a run that is just ending; None: as its finished.json has them.

    Returns:
        None where no run of ours lies there, or none that has made anything.
    """
    folder = next(
        (path for path in (Path(place), Path(place).parent) if (path / "run.json").exists()), None
    )
    if folder is None or (made := runs.record(folder)) is None:
        return None
    config, known = runs.config(folder), made.facts if facts is None else facts
    kind, mark = TYPES.get(config["task"]), known.get("fingerprint", known.get("base_fingerprint"))
    if kind is None or mark is None:
        return None
    inputs = {key: of["fingerprint"] for key, of in made.inputs.items() if of.get("fingerprint")}
    name = f"{config['name']}/{config['seed']}"
    return {"type": kind, "run": name, "fingerprint": mark, "made from": inputs}


def tell(folder: Path, facts: Mapping[str, Any], *, used: Sequence[str | Path] = ()) -> None:
    """Give the W&B run of this process, where there is one, its place in the lineage.

    Args:
        folder: of a run that ends; what it was made from is read there.
        facts: of that run. Without a fingerprint, its card is known by what was used.
        used: further runs whose results it rests on.
    """
    run, record = _current(), runs.record(folder)
    if run is None or record is None:
        return
    with _harmless(folder):
        _tell(run, record, facts, used=used)


def _tell(
    run: Any, record: runs.Record, facts: Mapping[str, Any], *, used: Sequence[str | Path]
) -> None:
    inputs = [(of["at"], of["fingerprint"]) for of in record.inputs.values() if of.get("at")]
    cards = {}
    for place, mark in [*inputs, *((place, None) for place in used)]:
        if (of := card(place)) is None:
            continue
        if mark not in (None, of["fingerprint"]):
            print(f"W&B: {place} has changed since it was used; it is left out of the lineage")
            continue
        _use(run, artifact(of))
        cards[of["run"]] = of["fingerprint"]
    known = {"fingerprint": fingerprint(cards), **facts} if used else facts
    if of := card(record.folder, facts=known):
        run.log_artifact(artifact({**of, "made from": cards} if used else of))


def publish(name: str, kind: str, files: Sequence[Path]) -> None:
    """Give the W&B run of this process, where there is one, files as an artifact, of which W&B
    keeps every version that differs."""
    if (run := _current()) is None:
        return
    import wandb

    with _harmless(name):
        made = wandb.Artifact(_named(name), type=kind)
        for path in files:
            made.add_file(str(path), name=path.name)
        run.log_artifact(made)


def artifact(of: Mapping[str, Any]) -> Any:
    """A card as an artifact of W&B; the same card is the same version."""
    import wandb

    made = wandb.Artifact(_named(f"{of['type']}-{of['run']}"), type=of["type"], metadata=dict(of))
    with made.new_file("card.json") as file:
        json.dump(of, file, indent=1, sort_keys=True)
    return made


@contextmanager
def _harmless(of: str | Path) -> Iterator[None]:
    """What W&B refuses is said, and fails no run that has done its work."""
    try:
        yield
    except Exception as error:
        print(f"W&B: {of} is left out of the lineage ({type(error).__name__}: {error})", flush=True)


def _current() -> Any:
    """The W&B run of this process; None where there is none, or one that keeps nothing."""
    run = getattr(sys.modules.get("wandb"), "run", None)
    return None if run is None or getattr(run, "disabled", False) else run


def _named(name: str) -> str:
    """A name that W&B takes; of a long one the end stays, which tells runs apart."""
    return re.sub(r"[^\w.-]+", "-", name.replace("/", "."))[-LONGEST:].lstrip("-.")


def _use(run: Any, of: Any) -> None:
    """Declare an input. W&B's own use_artifact refuses to do so offline, and waits for the server
    online; this is what it does first."""
    run._log_artifact(of, aliases=[], is_user_created=True, use_after_commit=True)
