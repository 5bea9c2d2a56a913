"""What every port of the layers shares: specification, checks, reference equations, weights."""
