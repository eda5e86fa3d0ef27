"""Trainings of the generator: the latents they read, the ControlNet, and a small base."""
