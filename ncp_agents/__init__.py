"""Small recurrent Atari agents whose circuit can be watched."""

__version__ = "0.1.0"
