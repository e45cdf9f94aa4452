"""Limits and choices of keys and flags. It imports nothing: `--help` answers at once."""

VERSION = "0.1.0"
# The program that trains each kind of model.
PROGRAMS = {"autoencoder": "autoencoder.py", "classifier": "classification.py"}
DATASETS = ("digits", "mnist", "fashion_mnist", "kmnist")

MAX_BATCH_SIZE = 65536  # images
MAX_EPOCHS = 100_000
MAX_STEPS = 10_000_000
MAX_SEED = 2**32 - 1  # what NumPy accepts
MAX_NAME = 200  # characters in the name of a class or model
MAX_IMAGES = 2**32 - 1  # what the header of an idx file can say

# The pixels that a saved model of another program may expect.
INPUT_RANGES = ("0..1", "0..255", "-1..1")
# The images that --invert and --transpose change.
CHANGED = ("all", "train", "test")
# The value of --devices for processes whose addresses are in the environment.
WORKERS = "workers"

# What weighs the classes in the loss of a classifier, and what chooses its best epoch.
CLASS_WEIGHTS = ("balanced",)
BEST_EPOCH_BY = ("auto", "accuracy", "f1", "last")

# How pictures of another ratio are brought to one size, and whether in gray; the default first.
RESIZE = ("pad", "crop", "stretch")
COLORS = ("auto", "gray", "rgb")

ALL = "all"  # instead of a number of labels: every image has one

# Columns of the table of `compare`: key -> heading.
TABLE_COLUMNS = {
    "name": "configuration",
    "seeds": "seeds",
    "mean": "mean",
    "sd": "sd",
    "best": "best",
    "test_accuracy": "test accuracy",
    "parameters": "parameters",
    "seconds": "seconds",
}

# Methods of `label-efficiency` -> their names in figures.
FROZEN, FINE_TUNED, SCRATCH = "frozen", "fine-tuned", "scratch"
PIXELS, PCA, NEIGHBOURS = "pixels", "pca", "neighbours"
RECIPE = "recipe"
WITHOUT_AUTOENCODER = "recipe-without-autoencoder"
WITHOUT_UNLABELLED = "recipe-without-unlabelled"
SPREADING, SPREADING_ENCODINGS = "label-spreading", "label-spreading-encodings"
SELF_TRAINING, SELF_TRAINING_ENCODINGS = "self-training", "self-training-encodings"
# The methods of scikit-learn that learn from unlabelled images too.
FROM_ALL = (SPREADING, SPREADING_ENCODINGS, SELF_TRAINING, SELF_TRAINING_ENCODINGS)
PRETRAINING_METHODS = {
    FROZEN: "pretrained, frozen",
    FINE_TUNED: "pretrained, fine-tuned",
    SCRATCH: "same network from scratch",
    PIXELS: "logistic regression on pixels",
    PCA: "logistic regression on PCA",
    NEIGHBOURS: "nearest encodings",
}
RECIPE_METHODS = {
    RECIPE: "recipe",
    WITHOUT_AUTOENCODER: "recipe without the autoencoder",
    WITHOUT_UNLABELLED: "recipe without unlabelled images",
    SPREADING: "label spreading on pixels",
    SPREADING_ENCODINGS: "label spreading on encodings",
    SELF_TRAINING: "self-training on pixels",
    SELF_TRAINING_ENCODINGS: "self-training on encodings",
}
METHODS = RECIPE_METHODS | PRETRAINING_METHODS
COUNTS = ("1", "2", "5", "10", "50", "100", "500", ALL)  # labels per class
HEAD = "configuration/classifier_small_small.json"
STEPS = 2000
# With fewer labels than a batch holds, a step is an epoch; more epochs than this change nothing.
MOST_EPOCHS = 500
