"""From a plan to a set of images on disk."""
