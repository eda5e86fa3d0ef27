"""A plan: a table of masks, prompts and seeds, written before any image is drawn."""
