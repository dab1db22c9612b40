"""The ladder: what each stage of a codec loses."""
