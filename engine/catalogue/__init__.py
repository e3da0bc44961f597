"""The catalogue: which tables are synchronised, read from the descriptors of packhorse.records. Pure."""
