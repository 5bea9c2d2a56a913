"""Videos, windows, pages and plots of policies and their scores."""
