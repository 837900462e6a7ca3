"""Universal Dependencies treebanks: their file format, their labels as tasks, and batches of sentences."""
