"""Preview pictures while the ControlNet trains: mask | real | synthetic, beside the run."""
