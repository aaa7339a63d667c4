"""The training loop, the methods as presets of it, and PET."""
