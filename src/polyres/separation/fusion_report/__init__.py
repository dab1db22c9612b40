"""What the fusion weights of a model say."""
