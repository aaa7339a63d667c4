"""Trials and their runner, and the commands that are lists of trials: train, probe, compare."""
