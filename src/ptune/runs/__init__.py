"""Experiments as lists of trials and their runner; the folders that runs write: named, held by one
process, and marked with all that decides their result."""
