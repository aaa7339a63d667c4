"""What stands on several pages: the columns and plots of runs, and texts side by side."""
