"""A singer: recorded notes or a built-in voice."""
