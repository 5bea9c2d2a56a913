"""Agents as data: the recipe that trains one, the saved policy, the zoo."""
