"""What tests of interrupted runs share: configurations, and what no interruption may change."""

from conftest import read_json, read_rows

from cae.records.saved_models import load_model

BATCH_SIZE = 8
AUTOENCODER = {
    "encoder_layers": [["conv", 3, [3, 3]], ["batchNorm"], ["pool", [2, 2]], ["drop", 0.3]],
    "decoder_layers": [["upSample", [2, 2]], ["conv", 3, [3, 3]]],
    "optimizer": ["adam", 0.01],
    "batch_size": BATCH_SIZE,
    "epochs": 3,
    "noise": 0.1,
    "augmentation": {"rotation": 10, "shift": 0.1, "zoom": 0.1},
    "learning_rate_schedule": ["exponential", 0.5],
}
CLASSIFIER = {
    "dense_layers": [["dense", 6], ["batchNorm"], ["drop", 0.3]],
    "optimizer": ["adam", 0.01, 0.002],
    "dense_only_train_epochs": 2,
    "full_train_epochs": 2,
    "batch_size": BATCH_SIZE,
    "learning_rate_schedule": ["cosine"],
}


def read_record(run):
    """What must be the same in two runs, however often they were interrupted."""
    rows = [{**row, "seconds": ""} for row in read_rows(run / "history.csv")]
    metrics = read_json(run / "metrics.json")
    for name in ("seconds", "images_per_second"):
        del metrics[name]
    weights = load_model(run / "model.keras")[0].get_weights()
    return rows, metrics, [weight.tobytes() for weight in weights]
