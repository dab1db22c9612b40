"""Sing vocals with recorded notes or a built-in voice."""
