"""Render tracker modules and sort their instruments into stems."""
