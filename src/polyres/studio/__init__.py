"""The studio: a web page that separates songs and plays the stems, and export of stems as one HTML page."""
