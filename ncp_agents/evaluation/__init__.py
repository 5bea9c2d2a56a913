"""Evaluation of saved policies: rollouts, scores and their statistics."""
