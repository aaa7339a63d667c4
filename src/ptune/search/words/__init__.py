"""Words for labels: PETAL's likelihood ratio, LM-BFF's conditional probabilities, and AutoPrompt's
classifier. It imports ``search/common`` and what stands below ``search``."""
