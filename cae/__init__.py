"""Classifies small images with convolutional autoencoders."""
