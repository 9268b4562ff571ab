"""TinyGen: a neural network and a board in; small, fast, bit-exact firmware out."""

__version__ = "0.1.0"
