"""What of a training is decided by the first steps of copies of its prompts."""
