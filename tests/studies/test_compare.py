"""Comparing records: spread over seeds, the verdict, and which hyperparameters mattered."""

import math

import pytest
from conftest import AUTOENCODER, CLASSIFIER, edit_json, read_rows
from report_folders import make_start, write_run

from cae.config.load import validate_config
from cae.errors import UserError
from cae.figures.comparisons import compare_visualization
from cae.records.history import History
from cae.records.run import FileRecord
from cae.studies.compare import (
    get_differences,
    group_results,
    influences,
    print_runs,
    sort_groups,
    verdict,
    write_table,
)
from cae.studies.results import RunResult, read_result


def result(tmp_path, name, value, seed=0, **changes):
    config = validate_config({**AUTOENCODER, **changes, "seed": seed}, name, "autoencoder")
    info = config.model_dump(mode="json")
    metrics = {"val_mse": value, "seconds": 10.0 * (seed + 1), "best_epoch": 1}
    history = History(name, "autoencoder", info, [], 1, metrics)
    start = make_start("autoencoder", name, info)
    return RunResult(tmp_path / f"{name}-{seed}", name, "base", history, start)


@pytest.fixture
def groups(tmp_path):
    """Two configurations far apart with three seeds each, the worse first."""
    far = [result(tmp_path, "far", 0.9 + seed / 100, seed, l2=0.5) for seed in range(3)]
    near = [result(tmp_path, "near", 0.1 + seed / 100, seed) for seed in range(3)]
    return group_results([*far, *near], "val_mse")


def test_seeds_make_a_group(groups):
    """Mean and spread by hand, the better mean first."""
    near, far = groups
    assert (near.name, far.name) == ("near", "far")
    assert near.mean == pytest.approx(0.11)
    assert near.sd == pytest.approx(0.01)
    # t with two degrees of freedom: 4.3027 at 97.5 %
    half = 4.3027 * 0.01 / math.sqrt(3)
    assert near.interval == pytest.approx((0.11 - half, 0.11 + half), rel=1e-4)
    assert near.best.history.model_info["seed"] == 0
    assert near.cell("seconds") == 20


def test_changed_images_are_other_data(tmp_path):
    runs = [result(tmp_path, "a", 0.1, seed) for seed in range(2)]
    runs[1].start.arguments.invert = "test"
    assert len(group_results(runs, "val_mse")) == 2


def test_another_share_for_testing_leaves_other_training_data(tmp_path):
    runs = [result(tmp_path, "a", 0.1, seed) for seed in range(2)]
    for share, groups in ((0.2, 1), (0.5, 2)):  # the first is the default
        runs[1].start.arguments.test_split = share
        assert len(group_results(runs, "val_mse")) == groups


def test_runs_with_few_labels_are_compared_with_others(tmp_path):
    """On the same data they are other groups, and so are runs with images without labels."""
    runs = [result(tmp_path, str(number), 0.1) for number in range(4)]
    runs[1].start.arguments.labels_per_class = 10
    for run, files in ((runs[1], "a"), (runs[2], "a"), (runs[3], "b")):
        run.start.data["unlabelled"] = [FileRecord(path=files, sha256=files, bytes=1)]
    groups = group_results(runs, "val_mse")
    assert len(groups) == 4
    rows = read_table(tmp_path / "table.csv", groups)
    assert len({row["data"] for row in rows}) == 1
    assert sorted(row["labels_per_class"] for row in rows) == ["", "", "", "10"]


def test_a_winner_is_ahead_of_the_noise(groups):
    assert verdict(groups).startswith("Best: near, ahead of far")


def test_no_winner_within_the_noise(tmp_path):
    runs = [result(tmp_path, "a", value, seed) for seed, value in enumerate([0.1, 0.3])]
    runs += [result(tmp_path, "b", value, s, l2=0.5) for s, value in enumerate([0.2, 0.3])]
    assert "No winner" in verdict(group_results(runs, "val_mse"))


def test_no_winner_by_one_seed(tmp_path):
    runs = [result(tmp_path, "a", 0.1), result(tmp_path, "b", 0.9, l2=0.5)]
    groups = group_results(runs, "val_mse")
    assert verdict(groups).startswith("No winner")
    assert groups[0].interval is None and math.isnan(groups[0].sd)
    assert verdict(groups[:1]) == "Best: a, the only one."


def test_runs_without_a_finite_value_come_last(tmp_path):
    runs = [result(tmp_path, "nan", math.nan), result(tmp_path, "a", 0.9, l2=0.5)]
    groups = group_results(runs, "val_mse")
    assert [group.name for group in groups] == ["a", "nan"]
    assert groups[1].cell("mean") is None and groups[1].best is None
    assert verdict(groups[1:]) == "No run has a finite value."


def test_without_validation_images_those_of_training_decide(tmp_path, capsys):
    """The better run, by 0.1 to 0.2, is the first row."""
    folders = []
    for name, value in (("worse", 0.2), ("better", 0.1)):
        folder = write_run(tmp_path / name, "autoencoder", value, name=name, l2=value)
        edit_json(folder / "metrics.json", mse=value, val_mse=None)
        folders.append(folder)
    print_runs(folders)
    output = capsys.readouterr().out
    assert "Comparison: mse" in output and "No run has a finite value" not in output
    assert output.index("better") < output.index("worse")


def test_of_accuracies_the_largest_is_best(tmp_path):
    """Encoders tell apart classifiers of the same hyperparameters."""
    info = validate_config(CLASSIFIER, "head", "classifier").model_dump(mode="json")
    runs = []
    for name, value in (("a", 0.7), ("b", 0.9)):
        history = History(name, "classifier", info, [], 1, {"val_accuracy": value})
        start = make_start("classifier", name, info, {"model": f"{name}.keras"})
        runs.append(RunResult(tmp_path / name, name, name, history, start))
    first, second = group_results(runs, "val_accuracy")
    assert (first.name, second.name) == ("b", "a")
    assert first.best.value("val_accuracy") == 0.9


def test_sorting(groups):
    assert [group.name for group in sort_groups(groups, "name")] == ["far", "near"]
    assert sort_groups(groups, "mean") == groups
    assert [group.name for group in sort_groups(groups[::-1], "best")] == ["near", "far"]
    for group, accuracy in zip(groups, (0.5, 0.6), strict=True):
        for run in group.results:
            run.history.metrics["test_accuracy"] = accuracy
    assert [group.name for group in sort_groups(groups, "test_accuracy")] == ["far", "near"]
    assert sort_groups(groups, "parameters") == groups  # nobody has any


def test_what_mattered(tmp_path):
    """Means of the values of each key; the learning rate counts apart from the optimizer."""
    runs = [
        result(tmp_path, f"{rate}-{size}", value, optimizer=["adam", rate], batch_size=size)
        for rate, size, value in ((0.1, 8, 1.0), (0.1, 16, 2.0), (0.2, 8, 5.0), (0.2, 16, 6.0))
    ]
    found = influences(group_results(runs, "val_mse"))
    # By 4 and by 1.
    assert [row[0] for row in found] == ["learning_rate"] * 2 + ["batch_size"] * 2
    assert found[0][1:] == pytest.approx(("0.1", 2, 1.5, math.sqrt(0.5)))
    assert found[3][1:] == pytest.approx(("16", 2, 4, math.sqrt(8)))


def test_differences(tmp_path):
    """Values, and what layers add to the most frequent ones; what changes together shares rows."""
    conv, pool, drop = ["conv", 4, [3, 3]], ["pool", [2, 2]], ["drop", 0.2]
    runs = [
        result(tmp_path, "a", 1.0, l2=0.0),
        result(tmp_path, "b", 2.0, l2=0.1),
        result(tmp_path, "c", 3.0, encoder_layers=[conv, drop, pool], noise=0.3),
        result(tmp_path, "d", 5.0, l2=0.1, encoder_layers=[conv, drop, pool], noise=0.3),
    ]
    groups = group_results(runs, "val_mse")
    usual, dropped = "most frequent", "+ drop 0.2"
    assert get_differences(groups) == {
        "encoder_layers": [usual, usual, dropped, dropped],
        "l2": ["0.0", "0.1", "0.0", "0.1"],
        "noise": ["0.0", "0.0", "0.3", "0.3"],
    }
    found = [row[:4] for row in influences(groups)]
    assert found[:2] == [
        ("encoder_layers, noise", usual, 2, 1.5),
        ("encoder_layers, noise", dropped, 2, 4.0),
    ]
    assert found[2:] == [("l2", "0.0", 2, 2.0), ("l2", "0.1", 2, 3.5)]
    assert influences(groups[:2]) == []


def test_an_encoder_in_a_file_is_named_by_its_path(tmp_path):
    """Whether a flag or the configuration gives it; a list of layers stands in words beside it."""
    runs = [
        write_run(tmp_path / "a", "classifier", 0.5, name="a", model="m.keras"),
        write_run(tmp_path / "b", "classifier", 0.5, name="b", encoder_layers="m.keras"),
        write_run(tmp_path / "c", "classifier", 0.5, name="c", encoder_layers=[["pool", [2, 2]]]),
    ]
    groups = group_results([read_result(run, run.name) for run in runs], "val_accuracy")
    differences = get_differences(sorted(groups, key=lambda group: group.name))
    assert differences["encoder_layers"] == ["m.keras", "m.keras", "pool 2×2"]
    assert "model" not in differences


def read_table(path, groups):
    write_table(path, groups)
    return read_rows(path)


def test_csv(groups, tmp_path):
    """One row per run, the best configuration first."""
    rows = read_table(tmp_path / "table.csv", groups)
    assert [row["run"] for row in rows[:2]] == ["near-0", "near-1"]
    assert rows[0]["learning_rate"] == "0.01" and rows[0]["val_mse"] == "0.1"
    assert len(rows) == 6


def test_names_are_no_formulas(tmp_path):
    """A negative number stays one."""
    groups = group_results([result(tmp_path, "=1+1", -0.5)], "val_mse")
    (row,) = read_table(tmp_path / "table.csv", groups)
    assert (row["configuration"], row["run"]) == ("'=1+1", "'=1+1-0")
    assert row["val_mse"] == "-0.5"


@pytest.fixture
def record(tmp_path):
    """A run's folder, whose files may be spoilt."""

    def write(files=(), name="tiny"):
        run = write_run(tmp_path / "run", "autoencoder", 0.5, name=name)
        for file, text in dict(files).items():
            (run / file).write_text(text)
        return run

    return write


def test_names_that_terminals_obey(record):
    """Nothing of them reaches the terminal."""
    path = record(name="a\x1b[2Jb")
    assert read_result(path).name == "a?[2Jb"
    assert read_result(path, "\x07", "\x9b").base == "?"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("metrics.json", '{"val_mse": "x", "best_epoch": 1}', "val_mse: must be a number"),
        ("metrics.json", "{}", "cannot be read: 'best_epoch'"),
        ("run.json", "{}", "run.json: config: is required"),
        ("history.csv", "epoch,loss\n1,x\n", "a record that cannot be read"),
        ("history.csv", "epoch,loss\n1,1,1\n", "a record that cannot be read"),
    ],
)
def test_damaged_records(record, file, text, said):
    with pytest.raises(UserError) as caught:
        read_result(record({file: text}))
    assert said in str(caught.value)


def test_figures(tmp_path):
    """A dot a seed, and an interval where there are several seeds."""
    runs = [result(tmp_path, "a", value, seed) for seed, value in enumerate([0.1, 0.3])]
    runs.append(result(tmp_path, "b", 0.9, l2=0.5))
    for run in runs:
        row = {"epoch": 1, "loss": 0.5, "val_loss": 0.5, "mse": 0.5, "val_mse": 0.5}
        run.history.epochs.append(row)
        run.history.metrics["parameters"] = 7
    groups = group_results(runs, "val_mse")
    figures = compare_visualization(
        [[run.history for run in group.results] for group in groups],
        [group.name for group in groups],
        [group.values for group in groups],
        [group.interval for group in groups],
        "val_mse",
    )
    (final,) = figures["final_values"].axes
    dots = [line for line in final.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in dots] == [[0.1, 0.3], [0.9]]
    (interval,) = [x for x in final.lines if len(x.get_xdata()) == 2 and x not in dots]
    # t with one degree of freedom: 12.706 at 97.5 %, so 0.2 ± 1.27, but no error is below 0
    assert interval.get_xdata().tolist() == pytest.approx([0, 0.2 + 12.706 * 0.1], rel=1e-4)
    arrows = [line for line in final.lines if line.get_marker() in ("<", ">")]
    assert [(line.get_marker(), line.get_xdata().tolist()) for line in arrows] == [("<", [0])]
    assert set(figures) == {"final_values", "costs", "comparison"}
