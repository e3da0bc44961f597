"""The SQL of the bench: a program at a site, and SQLite alone."""
