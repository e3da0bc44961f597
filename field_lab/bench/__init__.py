"""The bench: how fast changes travel, beside what the machine could do at best."""
