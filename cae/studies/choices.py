"""Choices of the commands of experiments.py. It imports nothing: `--help` answers at once."""

# Columns of the table of `compare`: key -> heading.
COLUMNS = {
    "name": "configuration",
    "seeds": "seeds",
    "mean": "mean",
    "sd": "sd",
    "best": "best",
    "test_accuracy": "test accuracy",
    "parameters": "parameters",
    "seconds": "seconds",
}

# Of `label-efficiency`: method -> its name in figures.
FROZEN, FINE_TUNED, SCRATCH = "frozen", "fine-tuned", "scratch"
PIXELS, PCA, NEIGHBOURS = "pixels", "pca", "neighbours"
METHODS = {
    FROZEN: "pretrained, frozen",
    FINE_TUNED: "pretrained, fine-tuned",
    SCRATCH: "same network from scratch",
    PIXELS: "logistic regression on pixels",
    PCA: "logistic regression on PCA",
    NEIGHBOURS: "nearest encodings",
}
ALL = "all"
COUNTS = ("1", "2", "5", "10", "50", "100", "500", ALL)  # labels per class
HEAD = "configuration/classifier_small_small.json"
STEPS = 2000
# With fewer labels than a batch holds, a step is an epoch; more epochs than this change nothing.
MOST_EPOCHS = 500
