"""The study's record: run folders, sweeps, dashboards, figures and the report. Imports cmrdata."""
