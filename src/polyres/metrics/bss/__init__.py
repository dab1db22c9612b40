"""BSSEval version 4."""
