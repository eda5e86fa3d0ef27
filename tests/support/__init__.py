"""What tests share: stand-ins for cohorts, runs and weights, and where the house lies."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
