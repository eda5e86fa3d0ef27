"""Wheels for a machine without a network: what it lacks of this program's packages.

    python -m pip list --format=freeze > has.txt                 # there
    python scripts/wheels.py --has has.txt --python 3.12         # here: into wheels/
    python -m pip install --no-index --no-deps --target wheels/there wheels/*.whl   # there, in the checkout
    export PYTHONPATH=src:wheels/there

Versions are those of requirements.lock. What the other machine has stays as it is, PyTorch above
all: torch and torchvision must be there, in versions that belong together. What a wheel asks for and
neither side has is named at the end, with exit status 1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

HOUSE = Path(__file__).parents[1]
THERE = ("torch", "torchvision")  # gigabytes, and of one build
GLIBC = ("2_17", "2_24", "2_26", "2_27", "2_28", "2_31", "2_34", "2_35")  # pip takes each literally


def listed(text: str) -> dict[str, str]:
    """Name -> version of the lines NAME==VERSION, with what belongs to no index left out."""
    lines = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}


def wanted(
    pyproject: Mapping[str, object], *, without: Iterable[str], has: Iterable[str]
) -> list[str]:
    """The requirements to resolve: the project's own, less those of `without`, and less `THERE`
    where the other machine has it."""
    left_out = {canonicalize_name(name) for name in without}
    project = pyproject["project"]
    assert isinstance(project, Mapping)
    names = {line: canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    if unknown := left_out - set(names.values()):
        raise ValueError(f"--without {' '.join(sorted(unknown))}: no requirement of pyproject.toml")
    if missing := [name for name in THERE if name not in set(has)]:
        raise ValueError(
            f"the other machine has no {' and no '.join(missing)}; install a build of PyTorch that fits its card there first, "
            "for its wheels are gigabytes"
        )
    return [line for line, name in names.items() if name not in left_out]


def pinned(requirements: Iterable[str], *, lock: Path, python: str) -> dict[str, str]:
    """Name -> version of requirements and all that they need, as the lock has them."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        raise ValueError("uv is not here; pip install uv")
    words = [uv, "pip", "compile", "-", "--constraint", str(lock), "--python-version", python]
    words += [
        "--python-platform",
        "x86_64-manylinux_2_28",
        "--no-annotate",
        "--no-header",
        "--quiet",
    ]
    text = "\n".join(requirements)
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"these requirements fit no versions: {' '.join(done.stderr.split())}")
    return listed(done.stdout)


def needed(pins: Mapping[str, str], has: Iterable[str]) -> list[str]:
    """NAME==VERSION of what the other machine lacks; nothing that belongs to a build of PyTorch."""
    own = {*map(canonicalize_name, has), *THERE, "triton", "setuptools", "pip"}
    return [
        f"{name}=={version}"
        for name, version in sorted(pins.items())
        if name not in own and not name.startswith(("nvidia-", "cuda-"))
    ]


def download(package: str, folder: Path, *, python: str) -> None:
    """One wheel into the folder; a package of Python alone that has none is built."""
    pip = [sys.executable, "-m", "pip"]
    platforms = [f"--platform=manylinux_{glibc}_x86_64" for glibc in GLIBC]
    words = [*pip, "download", "--no-deps", "--only-binary=:all:", "--implementation=cp"]
    words += [f"--python-version={python}", *platforms, "--platform=manylinux2014_x86_64"]
    done = _quietly([*words, "-d", str(folder), package])
    if done.returncode == 0:
        return
    with tempfile.TemporaryDirectory() as place:
        built = _quietly([*pip, "wheel", "--no-deps", "-w", place, package])
        wheels = list(Path(place).glob("*-none-any.whl"))
        if built.returncode or not wheels:
            told = (built if built.returncode else done).stderr.split()
            raise ValueError(f"{package}: no wheel for Python {python}: {' '.join(told)[-300:]}")
        shutil.move(wheels[0], folder)


def _quietly(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*words, "--quiet"], capture_output=True, text=True, check=False)


def lacking(wheels: Iterable[Path], has: Mapping[str, str], *, python: str) -> list[str]:
    """What the wheels ask for and neither they nor the other machine have, in sentences."""
    wheels = list(wheels)
    names = {path: parse_wheel_filename(path.name) for path in wheels}
    there = {**has, **{of[0]: str(of[1]) for of in names.values()}}
    marks = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    sentences = []
    for path in wheels:
        with zipfile.ZipFile(path) as archive:
            inside = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            asked = HeaderParser().parsestr(archive.read(inside).decode()).get_all("Requires-Dist")
        for requirement in map(Requirement, asked or []):
            if requirement.marker and not requirement.marker.evaluate(marks):
                continue
            version = there.get(canonicalize_name(requirement.name))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                sentences.append(
                    f"{names[path][0]} asks for {requirement}, there is {version or 'none'}"
                )
    return sentences


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--has", type=Path, required=True, help="pip list --format=freeze of there")
    parser.add_argument("--python", default="3.12", help="the Python of there")
    parser.add_argument("--without", nargs="*", default=[], help="requirements to leave out")
    parser.add_argument("--folder", type=Path, default=HOUSE / "wheels")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    has = listed(asked.has.read_text())
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())
    requirements = wanted(project, without=asked.without, has=has)
    lock = HOUSE / "requirements.lock"
    packages = needed(pinned(requirements, lock=lock, python=asked.python), has)
    asked.folder.mkdir(parents=True, exist_ok=True)
    for old in asked.folder.glob("*.whl"):  # two versions of one stop an installation
        old.unlink()
    for package in packages:
        download(package, asked.folder, python=asked.python)
        print(package, flush=True)
    wheels = sorted(asked.folder.glob("*.whl"))
    size = sum(path.stat().st_size for path in wheels) / 2**20
    print(f"{len(wheels)} wheels, {size:.1f} MiB, in {asked.folder.name}/")
    if sentences := lacking(wheels, has, python=asked.python):
        sys.exit("not whole: " + "; ".join(sentences))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
