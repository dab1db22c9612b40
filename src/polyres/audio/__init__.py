"""Sound files in and out, as streams of blocks."""
