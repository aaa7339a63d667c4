"""Prompts token by token: AutoPrompt's search by gradients, PEZ, and a trained soft prompt that
becomes words. It imports ``search/common`` and what stands below ``search``."""
