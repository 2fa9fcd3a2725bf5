"""The peers: `start` runs them; the other modules are what they run, each in its own environment."""
