"""The generator: a ControlNet on a frozen latent diffusion base, plans, rendering, fidelity."""
