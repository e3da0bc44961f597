"""The synchronisation engine that both nodes share. It knows no role: see ARCHITECTURE.md, "The house"."""
