"""Training of codecs and of what makes their results better."""
