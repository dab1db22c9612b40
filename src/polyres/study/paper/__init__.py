"""Tables and figures of a paper."""
