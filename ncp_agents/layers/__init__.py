"""What the ports of the layers share: the equations, the checks and the specification."""
