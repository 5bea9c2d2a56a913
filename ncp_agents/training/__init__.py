"""Training: a recipe in, a run folder with a saved policy out."""
