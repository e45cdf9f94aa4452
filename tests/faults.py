"""What a fault may leave: one line that names it, and no half-written results."""

COMPLETE = {"config.json", "environment.json", "history.csv", "metrics.json", "model.keras"}


def snapshot(folder):
    """Every file with its content."""
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def assert_one_error(done, text):
    """One line says what is wrong, and the exit code says that something is."""
    assert done.exit_code == 2, done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert text in line


def assert_no_half_runs(folder):
    """Runs with their final name are complete; all others can be resumed."""
    for run in folder.iterdir():
        assert run.name.endswith(".partial") or {path.name for path in run.iterdir()} >= COMPLETE
        unfinished = [path for path in run.rglob("*") if path.name.startswith(".")]
        assert not unfinished
