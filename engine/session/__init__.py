"""The session: frames, the state machines of both ends, and what they say to each other. Pure: see machine.py."""
