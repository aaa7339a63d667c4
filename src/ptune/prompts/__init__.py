"""What is learned: prompt encoders that make soft tokens and prefixes, and the bank that holds
those of many prompts."""
