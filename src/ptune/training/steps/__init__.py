"""What a step of a training needs: how rows count, optimisers, and what several prompts share."""
