"""Whole nodes on one thread with virtual time: production code, simulated links, power cuts, and a seed.

The nodes are the ones that run in production, session machines, drivers, ingest, storage and all; only the event loop's
clock, the stream between them and the thread of the database are replaced. What a seed does, it does again.
"""
