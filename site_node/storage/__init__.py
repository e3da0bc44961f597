"""The SQL statements of this package: what a site notes of itself."""
