"""Limits and choices that keys and flags share. It imports nothing: `--help` answers at once."""

VERSION = "0.1.0"
# The program that trains each kind of model.
PROGRAMS = {"autoencoder": "autoencoder.py", "classifier": "classification.py"}
DATASETS = ("digits", "mnist", "fashion_mnist", "kmnist")

MAX_BATCH_SIZE = 65536  # images
MAX_EPOCHS = 100_000
MAX_SEED = 2**32 - 1  # what NumPy accepts

# The pixels that a saved model of another program may expect.
INPUT_RANGES = ("0..1", "0..255", "-1..1")
# The images that --invert and --transpose change.
CHANGED = ("all", "train", "test")
# The value of --devices for workers whose addresses are in the environment.
CLUSTER = "cluster"

# What weighs the classes in the loss of a classifier, and what chooses its best epoch.
CLASS_WEIGHTS = ("balanced",)
BEST_EPOCH_BY = ("auto", "accuracy", "f1", "last")

# How pictures of another ratio are brought to one size, and whether in gray; the default first.
RESIZE = ("pad", "crop", "stretch")
COLORS = ("auto", "gray", "rgb")

ALL = "all"  # of the images have a label
