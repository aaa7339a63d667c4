"""Figures of trainings while they run, for whoever wants to watch: ``ptune train --log``."""
