"""Equal labels and steps for every method, results that accumulate, and honest conclusions."""

import itertools
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import (
    AUTOENCODER,
    CLASSES,
    edit_json,
    read_json,
    read_rows,
    run_python,
    write_dataset,
    write_json,
)

import experiments
from cae.config.choices import (
    FINE_TUNED,
    FROZEN,
    NEIGHBOURS,
    PRETRAINING_METHODS,
    RECIPE,
    RECIPE_METHODS,
    SCRATCH,
    WITHOUT_AUTOENCODER,
    WITHOUT_UNLABELLED,
)
from cae.config.load import Recipe, validate_config
from cae.data import idx
from cae.errors import UserError
from cae.files import locked, write_csv
from cae.studies import label_results
from cae.studies.label_baselines import (
    fit_label_spreading,
    fit_logistic,
    fit_self_training,
    validation_share,
)
from cae.studies.label_methods import FOLLOWING, NETWORKS, Methods, plan_recipe, plan_training

CONFIG = {
    "dense_layers": [["dense", 8]],
    "optimizer": ["adam", 0.01],
    "dense_only_train_epochs": 5,
    "full_train_epochs": 10,
    "batch_size": 16,
    "early_stopping": 3,
}
CLASSICAL = ("pixels", "pca", "neighbours")


# ------------------------------------------------------------------ budgets


@pytest.mark.parametrize(
    ("method", "num_training", "steps", "epochs"),
    [
        (FROZEN, 16, 30, (30, 0)),
        (FINE_TUNED, 16, 30, (10, 20)),
        (SCRATCH, 16, 30, (0, 30)),
        (SCRATCH, 17, 300, (0, 150)),  # two batches
        (FINE_TUNED, 17, 300, (50, 100)),
        (SCRATCH, 10_000, 1, (0, 1)),
        (SCRATCH, 3, 10**6, (0, 500)),  # more are of no use
    ],
)
def test_every_network_takes_the_same_steps(method, num_training, steps, epochs):
    """With the encoder frozen in all, a third or none of the epochs."""
    config = validate_config(CONFIG, "test", "classifier")
    plan = plan_training(config, method, num_training, steps)
    assert (plan.dense_only_train_epochs, plan.full_train_epochs) == epochs
    assert plan.early_stopping is None


def test_validation_takes_a_fifth_and_at_least_one_label_of_each_class():
    shares = {count: validation_share(count) for count in ("1", "2", "5", "100", "all")}
    assert shares == {"1": 0, "2": 0.5, "5": 0.2, "100": 0.2, "all": 0.2}


# ------------------------------------------------------------------ classical methods


def test_validation_labels_choose_the_strength():
    """And all labels are trained on afterwards."""
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 20)
    inputs = (labels[:, None] + rng.normal(0, 0.3, (40, 3))).astype(np.float32)
    search = fit_logistic(inputs, labels, np.arange(8))
    assert search.n_splits_ == 1
    assert (search.predict(inputs) == labels).mean() > 0.9
    assert fit_logistic(inputs, labels, np.arange(0)).C == 1


def test_methods_that_learn_from_images_without_labels():
    """Two rows of points, of each only one end has a label."""
    along = np.arange(20, dtype=np.float32)
    inputs = np.concatenate([np.stack([along, np.full(20, y)], axis=1) for y in (0, 30)])
    targets = np.full(40, -1)
    targets[[0, 39]] = 0, 1
    expected = np.repeat([0, 1], 20)
    np.testing.assert_array_equal(fit_label_spreading(inputs, targets).predict(inputs), expected)
    near = inputs / (1000, 10)  # a line between the labels divides the rows
    np.testing.assert_array_equal(fit_self_training(near, targets).predict(near), expected)


# ------------------------------------------------------------------ the program


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_json(tmp_path_factory.mktemp("config") / "head.json", CONFIG)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A stand-in for a saved autoencoder, for what needs none."""
    path = tmp_path / "model.keras"
    path.write_bytes(b"weights")
    for module in ("images", "starting_points"):
        monkeypatch.setattr(f"cae.programs.{module}.read_metadata", lambda path: {})
    return path


@pytest.fixture
def measure(launch, files, config):
    """Runs the comparison with further flags."""

    def run(*args, model, data=files, counts=("1", "4")):
        flags = ["label-efficiency", *data.classifier, "-c", config]
        flags += ["-model", model] if model else []
        flags += ["--name", "curve", *(["--counts", *counts] if counts else [])]
        return launch("experiments", *flags, *args)

    return run


@pytest.fixture
def pixels(measure, model):
    """Measures the quickest method with so many seeds."""

    def run(seeds=1, *args, **options):
        return measure("--methods", "pixels", "--seeds", seeds, *args, model=model, **options)

    return run


def read_results(finished_in):
    return read_rows(finished_in / "results.csv")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "curve"


def test_classical_methods_leave_a_complete_folder(measure, model, folder):
    done = measure("--methods", "pixels", "pca", "--seeds", 2, model=model).ok()
    names = "conclusion.txt environment.json label_efficiency.png order_0.json order_1.json"
    names += " results.csv settings.json summary.csv"
    assert sorted(path.name for path in folder.iterdir()) == names.split()
    rows = read_results(folder)
    found = [(row["seed"], row["per_class"], row["method"]) for row in rows]
    assert found == [*itertools.product("01", "14", ("pixels", "pca"))]
    assert [row["labels"] for row in rows[:4]] == ["3", "3", "12", "12"]
    assert [row["validation_labels"] for row in rows[:4]] == ["0", "0", "3", "3"]
    # Four images of each of three plain patterns say it all.
    assert [float(row["test_error"]) for row in rows if row["per_class"] == "4"] == [0] * 4
    assert "logistic regression on pixels" in done.err
    assert "Test error in %" in done.out


@pytest.fixture
def measured(monkeypatch):
    """The keys of what is measured; further calls go through `measured.before`."""
    measured = SimpleNamespace(keys=[], before=lambda *key: None)
    measure = Methods.measure

    def spy(self, *key, should_stop):
        measured.keys.append(key)
        measured.before(*key)
        return measure(self, *key, should_stop=should_stop)

    monkeypatch.setattr(Methods, "measure", spy)
    return measured


def test_a_second_start_measures_what_is_missing(pixels, folder, measured):
    """Further counts and seeds join the results, on the same subsets."""
    pixels()
    first = (folder / "results.csv").read_text()
    measured.keys.clear()
    pixels(2, counts=("1", "2", "4")).ok()
    assert measured.keys == [(0, "2", "pixels"), *((1, count, "pixels") for count in "124")]
    assert (folder / "results.csv").read_text().startswith(first)


def test_an_interrupted_start_keeps_its_results(pixels, folder, measured):
    """What is being measured when the signal comes is measured again, the rest is not."""

    def interrupt_third(*key):
        if len(measured.keys) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    measured.before = interrupt_third
    assert pixels(2).exit_code == 130
    assert len(read_results(folder)) == 2
    pixels(2).ok()
    assert len(measured.keys) == 5 and measured.keys[3] == measured.keys[2]


def test_time_left_follows_the_same_method_and_labels(pixels, folder):
    """Of other seeds; the mean of all where there are none."""
    pixels()
    few, many = label_results.read_results(folder / "results.csv")
    times = [few.model_copy(update={"seconds": 100}), many.model_copy(update={"seconds": 400})]
    write_csv(folder / "results.csv", [row.model_dump() for row in times])
    done = pixels(2)
    assert "[3/4] logistic regression on pixels, 3 labels, seed 1" in done.err
    assert "about 7 min left" in done.err  # 400 s


def test_one_program_measures_at_a_time(pixels, folder):
    pixels()
    before = (folder / "results.csv").read_bytes()
    with locked(folder):
        pixels(2).refused(f"error: {folder}: ", str(os.getpid()))
    assert (folder / "results.csv").read_bytes() == before


def test_other_settings_are_not_mixed_in(pixels, model, folder):
    pixels()
    before = (folder / "results.csv").read_bytes()
    pixels(1, "--steps", 7).refused("same steps as this start, 7, got 2000")
    model.write_bytes(b"other weights")
    pixels().refused("same model")
    assert (folder / "results.csv").read_bytes() == before


def test_results_of_earlier_versions_are_continued(pixels, folder):
    """Their settings lack newer keys and recipes, and their results the columns of these."""
    pixels()
    facts = read_json(folder / "settings.json")["leakage"]
    earlier = [fact.replace(" of the ", " of ") for fact in facts]
    edit_json(folder / "settings.json", leakage=earlier, recipes=None)
    edit_json(folder / "settings.json", "config", min_steps=None)
    results = label_results.read_results(folder / "results.csv")
    new = {"images_seen", "autoencoder_seconds"}
    write_csv(folder / "results.csv", [row.model_dump(exclude=new) for row in results])
    pixels(2).ok()
    assert [row["images_seen"] for row in read_results(folder)] == ["", "", "0", "0"]


@pytest.mark.parametrize("name", ["settings.json", "results.csv", "order_0.json"])
def test_damaged_files_are_named(pixels, folder, name):
    pixels()
    (folder / name).write_text("{damaged,\n1,2\n")
    done = pixels().refused(f"{name}: ")
    assert done.err.strip().splitlines()[-1].startswith("error: ")


def test_test_images_among_the_training_images_are_refused(pixels, tmp_path, folder):
    leaking = write_dataset(tmp_path / "leaking")
    images, test = idx.read_images(leaking.images), idx.read_images(leaking.test)
    test[5] = images[7]
    idx.write_idx(leaking.test, test[..., 0])
    facts = "among the training images, got 1 of them", "number 5.", "--allow-leakage"
    pixels(data=leaking).refused(*facts)
    assert not folder.exists()
    allowed = pixels(1, "--allow-leakage", data=leaking).ok()
    assert "1 of the test images is also among the training images (number 5)" in allowed.err


def test_test_images_among_the_pretraining_images_are_refused(pixels, files):
    done = pixels(1, "--pretraining", files.test)
    done.refused("among the pretraining images, got 24 of them")


def test_test_images_among_those_without_labels_are_refused(pixels, tmp_path):
    """An autoencoder has learned from these as well."""
    leaking = write_dataset(tmp_path / "leaking")
    images, labels = idx.read_images(leaking.images), idx.read_labels(leaking.labels)
    images[7], labels[7] = idx.read_images(leaking.test)[5], -1
    idx.write_idx(leaking.images, images[..., 0])
    idx.write_idx(leaking.labels, labels.astype(np.int8))
    pixels(data=leaking).refused("among the unlabelled images, got 1 of them")


def test_repeated_training_images_are_reported(pixels, tmp_path, folder):
    repeating = write_dataset(tmp_path / "repeating")
    images = idx.read_images(repeating.images)
    images[9] = images[3]
    idx.write_idx(repeating.images, images[..., 0])
    done = pixels(data=repeating)
    assert "Exact duplicates: 1 repeated image among the training images" in done.err
    assert "1 repeated image" in str(read_json(folder / "settings.json")["leakage"])


def test_counts_come_from_the_smallest_class(pixels, folder):
    """Asked for, too many is an error; by default, as many as there are."""
    pixels(counts=("17",)).refused("--counts: must be at most 16,", "got 17")
    pixels(counts=()).ok()
    assert [row["per_class"] for row in read_results(folder)] == ["1", "2", "5", "10", "all"]


def test_without_test_images_nothing_starts(model, files, launch, config):
    flags = ["label-efficiency", *files.unlabelled_test, "-c", config, "-model", model]
    assert not launch("experiments", *flags).refused("-t: test images are required").runs


def test_a_failed_training_does_not_end_the_others(pixels, folder, measured):
    def fail_first(*key):
        if len(measured.keys) == 1:
            raise UserError("rate", "must be smaller")

    measured.before = fail_first
    pixels().refused("error: rate: must be smaller")
    assert len(read_results(folder)) == 1


def test_a_network_from_scratch(measure, trained_autoencoder, folder):
    """It has the pretrained encoder's layers, and takes the steps that it is given."""
    flags = ["--seeds", 1, "--steps", 8, "--methods", SCRATCH]
    measure(*flags, model=trained_autoencoder.saved, counts=("10",)).ok()
    (row,) = read_results(folder)
    assert (row["labels"], row["validation_labels"], row["steps"]) == ("30", "6", "8")


def test_a_model_that_cannot_be_loaded_is_said_once(measure, model):
    """Not once for every training that needs it."""
    done = measure("--seeds", 2, model=model).refused(f"error: {model}: must be")
    assert done.err.count("error: ") == 1


# ------------------------------------------------------------------ recipes


UNLABELLED = {"batch_size": 16, "label_spreading": {"neighbours": 3}}
PLAIN_HEAD = {key: value for key, value in CONFIG.items() if key != "early_stopping"}


class TestPlans:
    """Of a recipe with 3 epochs of 90 images, then 2 of 80, in steps of 16 and 4 labelled ones."""

    def plan(self, method, num_training=20, **changes):
        classifier = PLAIN_HEAD | {"batch_size": 4, "unlabelled": UNLABELLED}
        classifier |= {"dense_only_train_epochs": 0, "full_train_epochs": 2, **changes}
        autoencoder = validate_config(AUTOENCODER | {"epochs": 3}, "test", "autoencoder")
        classifier = validate_config(classifier, "test", "classifier")
        recipe = Recipe("few", 100, autoencoder, classifier)
        return plan_recipe(recipe, method, num_training, num_unlabelled=80, num_pretraining=90)

    def test_the_recipe_is_followed(self):
        config, repeats = self.plan(RECIPE)
        assert (config.full_train_epochs, repeats) == (2, 1)
        assert config.unlabelled.label_spreading.on == "encodings"

    def test_without_the_autoencoder_as_many_images_are_seen(self):
        """270 images of the autoencoder are 3.4 epochs more: 4 are as many at least."""
        config, repeats = self.plan(WITHOUT_AUTOENCODER, dense_only_train_epochs=7)
        assert (config.dense_only_train_epochs, config.full_train_epochs, repeats) == (0, 6, 1)
        assert config.unlabelled.label_spreading.on == "pixels"

    def test_a_recipe_that_few_images_lengthen(self):
        """5 steps of 16 an epoch: 15 are 3 epochs, and 270 images at most 4 more."""
        config, _ = self.plan(WITHOUT_AUTOENCODER, min_steps=15)
        assert config.lengthened(1).full_train_epochs == 7

    @pytest.mark.parametrize(
        ("num_training", "epochs", "repeats"), [(20, 6, 1), (10, 6, 2), (3, 5, 7), (100, 1, 1)]
    )
    def test_without_unlabelled_images_as_many_steps_are_taken(self, num_training, epochs, repeats):
        """30 of 4 images: 6 epochs of 5 steps."""
        config, found = self.plan(WITHOUT_UNLABELLED, num_training)
        assert (config.full_train_epochs, found, config.unlabelled) == (epochs, repeats, None)

    def test_a_recipe_without_unlabelled_images(self):
        """270 images of the autoencoder are 3 epochs of 90 labelled ones more."""
        config, _ = self.plan(WITHOUT_AUTOENCODER, 90, unlabelled=None, dense_only_train_epochs=1)
        assert (config.dense_only_train_epochs, config.full_train_epochs) == (0, 6)


@pytest.fixture
def recipe(tmp_path):
    """The file of a tiny recipe."""
    classifier = {**PLAIN_HEAD, "dense_only_train_epochs": 0, "full_train_epochs": 2}
    classifier |= {"validation_split": 0, "best_epoch_by": "last", "unlabelled": UNLABELLED}
    halves = {"autoencoder": AUTOENCODER, "classifier": classifier}
    return write_json(tmp_path / "tiny.json", labels=1, **halves)


def test_a_recipe_with_and_without_its_parts(measure, recipe, folder):
    """Of 48 images 12 are labelled; the autoencoder validates on 5 of them."""
    measure("--recipes", recipe, "--seeds", 1, model=None, counts=("4",)).ok()
    rows = read_results(folder)
    assert [row["method"] for row in rows] == [*RECIPE_METHODS]
    assert {row["validation_labels"] for row in rows} == {"0"}
    assert {row["test_error"] for row in rows if "spreading" in row["method"]} == {"0.0"}
    # 3 steps of 16 of 43 images; 2 epochs of 3 steps of 16 + 16 images.
    # Without the autoencoder 2 epochs more. Without unlabelled images 12 steps of 16.
    # On encodings, the autoencoder counts as well.
    assert [row["steps"] for row in rows] == ["9", "12", "12", "0", "3", "0", "3"]
    seen = ["235", "384", "192", "0", "43", "0", "43"]
    assert [row["images_seen"] for row in rows] == seen
    has_seconds = [float(row["autoencoder_seconds"]) > 0 for row in rows]
    assert has_seconds == [True, False, False, False, True, False, True]
    conclusion = (folder / "conclusion.txt").read_text()
    assert "without unlabelled images" in conclusion and "without the autoencoder" in conclusion

    (kept,) = folder.glob("autoencoder_*_0.keras")
    content = kept.read_bytes()
    again = ["--recipes", recipe, "--methods", NEIGHBOURS, RECIPE, "--seeds", 1]
    assert measure(*again, model=None, counts=("4", "2")).exit_code == 0
    assert kept.read_bytes() == content
    assert len(read_results(folder)) == len(RECIPE_METHODS) + 3
    edit_json(recipe, "classifier", batch_size=7)
    measure(*again, model=None, counts=("4",)).refused("same recipe for 4 labels per class")


def test_an_interrupted_autoencoder_is_trained_again(measure, recipe, folder, monkeypatch):
    from cae.training import train

    def interrupt(*args, train=train.train_autoencoder, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return train(*args, **options)

    flags = ["--recipes", recipe, "--seeds", 1, "--methods", WITHOUT_UNLABELLED, RECIPE]
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_autoencoder", interrupt)
        assert measure(*flags, model=None, counts=("4",)).exit_code == 130
    assert len(read_results(folder)) == 1
    assert not [*folder.glob("*.keras")]
    assert measure(*flags, model=None, counts=("4",)).exit_code == 0
    assert len(read_results(folder)) == 2


@pytest.fixture
def recipe_for_all(recipe):
    """The file of a tiny recipe without an autoencoder."""
    layers = AUTOENCODER["encoder_layers"]
    edit_json(recipe, "classifier", encoder_layers=layers, unlabelled=None, full_train_epochs=1)
    edit_json(recipe, autoencoder=None, labels="all")
    return recipe


def test_a_recipe_without_an_autoencoder(measure, recipe_for_all, folder):
    """For all labels: the recipe alone, because nothing can be left out."""
    flags = ["--recipes", recipe_for_all, "--seeds", 1, "--methods", *FOLLOWING]
    done = measure(*flags, model=None, counts=("4", "all")).ok()
    assert "12 labels" in done.err
    assert [(row["method"], row["labels"], row["images_seen"]) for row in read_results(folder)] == [
        (RECIPE, "48", "48")
    ]


@pytest.mark.slow
def test_tensorflow_is_silent(recipe_for_all, files, tmp_path):
    """A process of its own, because TensorFlow logs while it is imported."""
    flags = [*files.classifier, "--recipes", recipe_for_all, "--seeds", 1, "--counts", "all"]
    flags += ["--methods", RECIPE, "--runs-dir", tmp_path / "runs"]
    done = run_python("experiments.py", "label-efficiency", *flags, TF_CPP_MIN_LOG_LEVEL=None)
    assert done.returncode == 0, done.stderr
    assert "Starting TensorFlow" in done.stderr
    assert not re.search(r"^[IWE]\d{4} |absl|oneDNN", done.stderr, re.MULTILINE), done.stderr


@pytest.mark.slow
def test_every_method_on_a_trained_autoencoder(measure, trained_autoencoder, folder):
    """All see the same number of labels, and all networks take the same number of steps."""
    measure("--seeds", 1, "--steps", 40, model=trained_autoencoder.saved, counts=("10",)).ok()
    rows = {row["method"]: row for row in read_results(folder)}
    assert list(rows) == list(PRETRAINING_METHODS)
    assert {row["labels"] for row in rows.values()} == {str(10 * len(CLASSES))}
    assert {rows[method]["steps"] for method in NETWORKS} == {"40"}
    assert {rows[method]["steps"] for method in CLASSICAL} == {"0"}
    assert max(float(row["test_error"]) for row in rows.values()) < 0.5


def test_the_shipped_head_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["label-efficiency", "-d", "digits", "-model", "model.keras"]
    assert Path(experiments.build_parser().parse_args(flags).config).is_file()
