"""Subjects, slices, groups and sets on disk: what generator and classifier share, and neither
owns."""
