"""Predictions in, fairness tables and figures out. Nothing here knows a network."""
