"""Figures: of predicted labels, and of written texts."""
