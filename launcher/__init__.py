"""One YAML profile in, a served, supervised and measured OpenAI-compatible endpoint out."""

__version__ = "0.1.0"
