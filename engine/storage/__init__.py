"""The port to a node's database and its SQLite adapter. Every SQL statement of the engine is in this folder.

The functions here are synchronous and take a connection inside a transaction; `Database` runs them, in production on
aiosqlite's thread, in the simulator inline.
"""
