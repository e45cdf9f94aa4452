"""Models of other programs: their encoders, pixels and probabilities."""
