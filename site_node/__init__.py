"""The node at a warehouse, hospital or clinic: works offline, dials the central when it can."""
