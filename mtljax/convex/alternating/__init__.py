"""Convex methods that alternate between weights and a matrix that the tasks share."""
