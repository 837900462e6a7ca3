"""Scenes of shapes, drawn or rendered: classes, places, motion and rays."""
