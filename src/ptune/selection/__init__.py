"""Choosing a method for a task by cross-validation on its few labelled rows. No row that is scored
in the end takes part."""
