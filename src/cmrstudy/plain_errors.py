"""Which errors are a user's business and become one paragraph with a remedy; any other is a fault
of ours, and keeps its traceback. Imports nothing heavy."""

from __future__ import annotations

import re
import sys

from cmrdata.disk import REFUSALS, Unwritable
from cmrstudy.memory import OutOfMemory

LOST = re.compile(r"Error (?:locating|loading) target '([^']+)'")  # as Hydra says it
UNEXPECTED = re.compile(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'")
# -> their extra
MODULES = {"tensorboard": "loggers", "mlflow": "loggers", "optuna": "cluster", "gradio": "app"}
TIME_OVER = (
    "its time on SLURM was over (hydra.launcher.timeout_min, less hydra.launcher.signal_delay_s "
    "seconds); give it more, or hydra.launcher.max_num_timeout=<n> to have it queued again, and "
    "continued, up to n times"
)


class AttemptEnded(Exception):
    """This attempt's time is over (max_time, a signal, SLURM's limit) and the run is not: the same
    command continues it."""


PLAIN = (
    ValueError,
    FileNotFoundError,
    FileExistsError,
    FloatingPointError,
    Unwritable,
    OutOfMemory,
)


def paragraph(error: BaseException) -> str | None:
    """The paragraph a user needs when the input, the settings or the disk are at fault; None for
    any other error."""
    # what a config's _target_ raised, Hydra wraps
    if type(error).__name__ == "InstantiationException":
        if lost := LOST.match(str(error)):
            return (
                f"_target_ {lost[1]} can't be imported; is its name right, and its folder in "
                "PYTHONPATH?"
            )
        if told := _misfit(error.__cause__, at=str(error).rpartition("full_key: ")[2]):
            return told
        error = error.__cause__ or error
    if isinstance(error, TypeError) and (odd := UNEXPECTED.search(str(error))):
        typed = [arg.lstrip("+").partition("=")[0] for arg in sys.argv[1:] if "=" in arg]
        if keys := [key for key in typed if key.rpartition(".")[2] == odd[2]]:
            return f"{keys[0]}: {odd[1]} has no such setting; leave it out"
    if type(error).__name__ in ("ConfigAttributeError", "ConfigKeyError") and (
        gone := [arg for arg in sys.argv[1:] if arg.startswith("~")]
    ):
        key = re.search(r"full_key: (\S+)", str(error))
        needed = key[1] if key else "what it deletes"
        return f"{' '.join(gone)}: the command needs {needed}; leave the ~ out"
    if type(error).__name__ == "MissingMandatoryValue":  # OmegaConf's: ??? in a file of settings
        lacking = str(error).partition("\n")[0].rpartition(" ")[2]
        return f"{lacking} has no value (???); give {lacking}=..."
    if type(error).__name__ == "UncompletedJobError":  # submitit's, in the job itself
        return TIME_OVER
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return f"{error}; free some space, or write elsewhere with run_dir="
    return str(error) if isinstance(error, (*PLAIN, AttemptEnded)) else _foreign(error)


def _misfit(error: BaseException | None, *, at: str) -> str | None:
    """A sentence where a config's `_target_` does not take the settings beside it."""
    text = str(error)
    if not isinstance(error, TypeError):
        return None
    if odd := UNEXPECTED.search(text):
        return f"{at}: {odd[1]} has no setting {odd[2]!r}; leave it out"
    if bare := re.search(r"^(\w+)\(\) takes no arguments", text):
        return f"{at}: {bare[1]} has no settings; leave those beside _target_ out"
    if lacking := re.search(r"(\w+)(?:\.__init__)?\(\) missing \d+ required .*: (.+)", text):
        return f"{at}: {lacking[1]} needs {lacking[2]}; give it beside _target_"
    return None


def _foreign(error: BaseException) -> str | None:
    """A paragraph for what other libraries say of a user's choice; None for anything else."""
    name, text = type(error).__name__, str(error).strip()
    package = type(error).__module__.partition(".")[0]
    if name == "MisconfigurationException":
        gpu = (
            "; trainer=auto takes whatever there is" if "backend" in text or "CUDA" in text else ""
        )
        return f"{' '.join(text.split()).rstrip('!.')}{gpu}"
    if isinstance(error, ModuleNotFoundError):
        for module, extra in MODULES.items():
            if module in text.lower():
                return (
                    f"{' '.join(text.split())} It comes with the extra {extra}: pip install -e "
                    f"'.[{extra}]'"
                )
    if package == "wandb":
        return (
            f"W&B: {' '.join(text.split())} Run `wandb login`, set WANDB_API_KEY, or keep the run "
            "here with WANDB_MODE=offline"
        )
    if "EADDRINUSE" in text or "address already in use" in text.lower():
        return (
            "the port by which processes would find each other is in use; set another "
            "MASTER_PORT, or none"
        )
    return None
