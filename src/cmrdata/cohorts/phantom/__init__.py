"""A synthetic heart cohort for trials and tests, also written in the layouts of real cohorts."""
