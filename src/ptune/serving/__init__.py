"""One frozen LM and many prompts behind HTTP: requests of any prompts meet in one batch."""
