"""Rows as a task asks them: tokenised, with what is learned of each."""
