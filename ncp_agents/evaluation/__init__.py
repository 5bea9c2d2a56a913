"""How well a policy plays: rollouts, scores and their statistics."""
