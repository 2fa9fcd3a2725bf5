"""Truth that can be reached: what a detector is scored against on links that nobody has labelled."""
