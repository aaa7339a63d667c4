"""The commands that run experiments or answer rows: train, probe, compare, predict, ..."""
