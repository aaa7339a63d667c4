"""What an LM can do with prompts, tried when it is loaded."""
