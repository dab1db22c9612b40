"""Claims, and the evidence for and against them."""
