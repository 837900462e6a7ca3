"""Universal Dependencies: its file format, its labels as tasks, and batches of its sentences."""
