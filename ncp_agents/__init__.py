"""Small recurrent agents on neural circuit policies: train, clone, evaluate, open up."""

__version__ = "0.2.0"
