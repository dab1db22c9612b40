"""Build listening studies and read their files."""
