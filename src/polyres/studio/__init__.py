"""The studio: a page that separates songs and plays their stems, and pages of finished stems to give away."""
