"""A task's configuration resolved into plain values, each with one subject."""
