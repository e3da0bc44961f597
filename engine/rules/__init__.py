"""The specification as pure functions and tables: who edits, who receives, which version is newer. Pure."""
