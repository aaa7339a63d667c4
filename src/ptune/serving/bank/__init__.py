"""The prompts of a server: on the disk, in memory, and what changes between."""
