"""What leaves the study: a diffusers folder, a model card, images in other formats."""
