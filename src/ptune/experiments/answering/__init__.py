"""Saved prompts at work: scored on rows, or answering them one batch after the other."""
