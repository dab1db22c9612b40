"""Studies: many trainings, their scores, and a paper about them."""
