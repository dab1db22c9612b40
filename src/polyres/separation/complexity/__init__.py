"""Parameters, operations, speed and memory of models."""
