"""The node in the middle: takes what sites push, routes to each what concerns it, knows the whole topology."""
