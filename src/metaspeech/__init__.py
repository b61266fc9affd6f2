"""Meta-learning for speech synthesis: a new voice from a handful of recordings and a few gradient steps."""

__version__ = "0.1.0"
