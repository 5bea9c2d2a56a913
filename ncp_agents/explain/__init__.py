"""What happens inside a policy while it acts: its circuit and its activations."""
