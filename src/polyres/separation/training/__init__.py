"""Training of separators."""
