"""Studies: their files, and how they are made."""
