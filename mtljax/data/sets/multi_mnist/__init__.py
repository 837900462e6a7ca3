"""Multi-MNIST and its kin: two images on one canvas, a task per image."""
