"""Reads models and results: complexity, fusion report, tables and figures; it never trains."""
