"""Building blocks of architectures: networks, columns, experts, encoders, gates, and the places of `Params`."""
