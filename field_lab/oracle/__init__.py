"""An independent judge: who may edit and who has what, written from the specification, with nothing of the engine."""
