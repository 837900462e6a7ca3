"""The Multi-MNIST family: two images on one canvas, one task per image."""
