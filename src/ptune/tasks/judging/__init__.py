"""How good a task's answers are, and what a user would get without prompts."""
