"""The central's own tables and every SQL statement of this package."""
