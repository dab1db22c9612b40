"""Names and text only: errors, catalogues and typed configs."""
