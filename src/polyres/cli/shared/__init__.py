"""What several commands share: progress, pipes, examples, tables."""
