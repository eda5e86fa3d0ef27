"""The frozen latent diffusion base: read, checked, and used a portion at a time."""
