"""Mixtures of data sets: the stream, how a batch is divided, and at which rates tasks are drawn."""
