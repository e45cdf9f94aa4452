"""`experiments.py compare`: runs of one configuration become a row of the table of their data."""

from functools import partial

import pytest
from conftest import AUTOENCODER, read_rows, run_program, write_json
from report_folders import make_start, trials_of

from cae import terminal
from cae.records.run import PARTIAL, FileRecord

compare = partial(run_program, "experiments", "compare")


def test_compare_sorts_and_writes(study, run_study, trainer, tmp_path):
    """Over the study's folder or over its runs: the same runs, the same table."""
    done = run_study(study())
    runs = [done.run / trial["id"] for trial in trials_of(done.run)]
    table = tmp_path / "table.csv"
    out = compare(done.run, "--csv", table, "--sort", "name").ok().out
    assert out.index("learning_rate=0.01") < out.index("learning_rate=0.02")
    assert table.read_bytes() == (done.run / "results.csv").read_bytes()
    assert "0.0105" in compare(*runs).ok().out  # the mean of 0.01 and 0.011
    for path in (table, tmp_path / "missing" / "table.csv"):
        assert compare(*runs, "--csv", path).refused(str(path.parent)).out == ""


def test_names_are_shown_in_full(study, run_study, trainer, screen):
    """In a file on one line, on a narrow terminal folded."""
    done = run_study(study())
    assert "│ learning_rate=0.02 │" in done.out
    shown = screen(80)
    compare(done.run).ok()
    table = shown.getvalue().rpartition("┘")[0]
    assert "…" not in table and max(map(len, table.splitlines())) <= 80


def test_a_table_too_wide_for_the_terminal(screen):
    """Where numbers would be cut, each row is a list; numbers and names stay whole."""
    # 12 for the name, 8 for each number, 3 between columns and 4 at the ends.
    row = {"name": "autoencoder_large", "mean": "0.012345", "low": "0.010000", "high": "0.014000"}
    narrow = screen(48)
    terminal.print_rows("Comparison", [row], ("mean", "low", "high"))
    lines = [line.split() for line in narrow.getvalue().splitlines()]
    assert lines == [["Comparison"], *map(list, row.items())]
    wider = screen(49)
    terminal.print_rows("Comparison", [row], ("mean", "low", "high"))
    assert "│ 0.012345 │ 0.010000 │ 0.014000 │" in wider.getvalue()


@pytest.fixture
def recorded(tmp_path):
    """Writes the record of a run of the configuration `tiny`."""

    def write(name, value, data="a", started="2026-01-01T00:00:00", flags=(), **config):
        folder = tmp_path / name
        folder.mkdir()
        file = FileRecord(path=f"{data}.idx", sha256=data * 64, bytes=1)
        changes = {"started": started, "data": {"training": [file]}}
        start = make_start("autoencoder", "tiny", AUTOENCODER | config, flags, **changes)
        write_json(folder / "run.json", start.to_json())
        write_json(folder / "metrics.json", {"val_mse": value, "best_epoch": 1})
        (folder / "history.csv").write_text("epoch,phase,loss\n1,full,0.5\n")
        return str(folder)

    return write


@pytest.fixture
def compared(tmp_path):
    """Compares runs; returns the program, and the configuration of each run in its table."""

    def compared(*runs):
        done = compare(*runs, "--csv", tmp_path / "compared.csv").ok()
        rows = read_rows(tmp_path / "compared.csv")
        return done, {row["run"]: row["configuration"] for row in rows}

    return compared


def test_runs_of_one_name_are_averaged_only_if_their_seeds_alone_differ(recorded, compared):
    """Two seeds of 0.25 and 0.75 have the mean 0.5; flags, epochs and layers make other groups."""
    done, rows = compared(
        recorded("one", 0.25, seed=1),
        recorded("two", 0.75, seed=2),
        recorded("few", 0.125, flags={"limit": 10}, seed=1),
        recorded("fresh", 0.9375, flags={"no_pretrained": True}, seed=1),
        recorded("long", 0.0625, epochs=9, seed=1),
        recorded("decayed", 0.875, l2=0.5, seed=1),
    )
    assert rows["one"] == rows["two"]
    assert len(set(rows.values())) == 5
    lines = [line.split("│") for line in done.out.splitlines() if line.startswith("│ tiny")]
    assert [cells[3].strip() for cells in lines] == ["0.0625", "0.125", "0.5", "0.875", "0.9375"]


def test_data_sets_are_not_ranked_together(recorded, compared):
    """One table and one verdict for each."""
    done, _ = compared(recorded("one", 0.25, data="a"), recorded("two", 0.75, data="b"))
    assert done.out.count("the only one") == 2
    assert "on a.idx (aaaaaaaa): " in done.out and "on b.idx (bbbbbbbb): " in done.out


def test_the_latest_run_of_a_seed_counts(recorded, compared):
    """Whatever the order; the earlier one, and a run named twice, are no further seeds."""
    late = recorded("late", 0.25, started="2026-01-02T00:00:00")
    done, rows = compared(late, recorded("early", 0.75), late)
    assert list(rows) == ["late"]
    assert "early" in done.err and "late:" not in done.err


def test_what_is_no_complete_run_is_named_and_left_out(recorded, compared, tmp_path):
    run = recorded("one", 0.25)
    interrupted = recorded(f"two{PARTIAL}", 0.5, seed=2)  # stopped before it was renamed
    (tmp_path / "empty").mkdir()
    others = [interrupted, str(tmp_path / "empty")]
    done, rows = compared(run, *others)
    assert list(rows) == ["one"]
    assert all(name in " ".join(done.err.split()) for name in others)
    compare(*others).refused(*others)


def test_figures_of_a_comparison(recorded, tmp_path):
    """In a new folder; one for each data set if there are several."""
    one, two, other = (
        recorded(name, value, data=data, seed=seed)
        for name, value, data, seed in (
            ("one", 0.25, "a", 1),
            ("two", 0.5, "a", 2),
            ("other", 0.5, "b", 1),
        )
    )
    done = compare(one, two, "--figures", tmp_path / "drawn").ok()
    drawn = [path.name for path in (tmp_path / "drawn").iterdir()]
    assert "comparison.png" in drawn and all(name in done.out for name in drawn)
    compare(one, other, "--figures", tmp_path / "both").ok()
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"data-1", "data-2"}
    compare(one, "--figures", tmp_path / "drawn").refused("--figures", "drawn")


def test_compare_refuses_what_is_no_run(tmp_path):
    compare(tmp_path).refused("must be a complete run, got no metrics.json in it")
    (tmp_path / "metrics.json").write_text("{}")  # as in a folder of predict.py evaluate
    compare(tmp_path).refused("must be a complete run, got no run.json in it")


def test_a_damaged_record_of_a_study(tmp_path):
    (tmp_path / "trials.json").write_text('{"metric": "val_mse"}')
    compare(tmp_path).refused("trials.json")
