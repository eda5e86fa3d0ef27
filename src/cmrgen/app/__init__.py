"""The interactive page: a mask and a few attributes in, an image and what judges see in it out."""
