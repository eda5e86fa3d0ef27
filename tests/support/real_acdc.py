"""Where the real ACDC patients lie, if this machine has them."""

import os
from pathlib import Path

from support import ROOT

REAL = Path(os.environ.get("CMR_ACDC_ROOT") or ROOT.parent / "shared" / "data" / "acdc")
