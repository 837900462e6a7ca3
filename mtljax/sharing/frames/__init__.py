"""What architectures are made of: networks, columns, experts, encoders, gates, and how parameters are filed by task."""
