"""A tiny base, and the latents of a small cohort by it: made once for all who only read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cmrgen.base.frozen import Base


@pytest.fixture(scope="session")
def base(tiny_base: Path) -> Base:
    from cmrgen.base.load import load_base

    return load_base(weights=str(tiny_base))


@pytest.fixture(scope="session")
def latents(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from support.tiny_controlnet import latents_in

    return latents_in(tmp_path_factory.mktemp("data"), base)
