"""From a click log to numbers: sources, the feature specification, splits, the encoder, prepared files, and a click world."""
