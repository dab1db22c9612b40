"""Weight files: reading, writing, downloading."""
