"""Convex methods that alternate between the tasks' weights and a matrix that the tasks share."""
