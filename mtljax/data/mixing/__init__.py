"""Mixtures of tasks that have their own data: the stream, the division of a batch, and the rates of tasks."""
