"""A wheel's package `cmr` holds what stands at the top of the checkout: the commands, conf/, assets/.

Everything else about the package is in pyproject.toml. An editable install copies nothing.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
COMMANDS = ("train.py", "generate.py", "evaluate.py")
FOLDERS = ("conf", "assets")


def packaged() -> list[Path]:
    """Files of the checkout that go into the wheel, relative to it."""
    files = [path for folder in FOLDERS for path in sorted((HERE / folder).rglob("*"))]
    inside = [path.relative_to(HERE) for path in files if path.is_file()]
    # a machine's own settings stay there
    own = {path for path in inside if path.parent.name == "local" and path.stem != "example"}
    return [Path(name) for name in COMMANDS] + [path for path in inside if path not in own]


class WithCommands(build_py):
    """Also copies the commands and what they read, unless the install is editable."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for path in packaged():
            target = Path(self.build_lib) / "cmr" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(HERE / path, target)


setup(cmdclass={"build_py": WithCommands})
