"""Generated scenes with exact labels: moving shapes, and rendered rooms."""
