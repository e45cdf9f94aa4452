"""Models and their training. Keras loads here alone."""
