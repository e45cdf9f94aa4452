"""Models and their training: the room whose modules import Keras at the top."""
