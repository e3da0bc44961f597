"""Every SQL statement of the oracle."""
