"""Numbers about audio; they know nothing of models."""
