"""One start of a training program: trains configurations and compares them, or shows the menu."""

import argparse
import itertools
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cae import prompts, terminal
from cae.config.choices import WORKERS
from cae.config.load import dump_config
from cae.config.schema import Config
from cae.config.shipped import PROJECT
from cae.data.datasets import Scaling
from cae.errors import UsageError, UserError, readable
from cae.files import free_name, new_file, write_figures
from cae.programs.evaluate import check_classifier, evaluate_file, record_test
from cae.programs.images import warn_of_looks
from cae.programs.questions import Latest, ask_config
from cae.programs.starting_points import check_destinations, check_layers, get_sample_seed
from cae.programs.task import Experiment, Task
from cae.programs.trainer import Trainer
from cae.records.evaluation import Evaluation
from cae.records.history import OnEpoch
from cae.records.run import MODEL_FILE, Run
from cae.records.saved_models import MODEL_SUFFIXES, check_destination, read_metadata
from cae.records.shelf import find_models

# Prints the table that compares complete runs, given their folders.
Compare = Callable[[Sequence[Path]], object]


class Session:
    """The experiments of one start.

    Attributes:
        experiments: Those that were trained, in order.
        latest: The answers to the questions for the latest, if they were asked.
    """

    def __init__(self, task: Task, compare: Compare, on_epoch: OnEpoch | None = None):
        self.task = task
        self._compare = compare
        self.experiments: list[Experiment] = []
        self._args = task.args
        self._trainer = Trainer(task, on_epoch)
        self._exit_code = 0
        self.latest = Latest()
        self._interrupted: Experiment | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether a signal asked for the end."""
        return self._trainer.stop.requested()

    @property
    def exit_code(self) -> int:
        """0, 2 when a configuration could not be trained, or 128 plus the signal that came."""
        return self._trainer.stop.exit_code or self._exit_code

    def run(self, configs: list[tuple[str, Config]]) -> int:
        """Trains the configurations and concludes; returns the exit code."""
        with self._joined_workers():
            for name, config in configs:
                try:
                    self.train(name, config)
                except UserError as error:
                    if self._trainer.workers:
                        raise  # the others may not have failed
                    self._exit_code = terminal.report(error)
                if self.is_stopped:
                    break
            self.conclude()
        return self.exit_code

    def train(self, name: str, config: Config) -> None:
        """Trains one configuration under a name that none of the others has."""
        experiment = self._trainer.train(self._full_name(name), config)
        if experiment is None:
            return
        if experiment.run.interrupted:
            self._interrupted = experiment
        else:
            self.experiments.append(experiment)
        if experiment.history.divergence and not self.is_stopped:
            self._exit_code = terminal.report(experiment.history.divergence)

    def keep_interrupted(self) -> None:
        """Keeps the model so far of a training that Ctrl-C ended, and continues the dialogue."""
        if self._interrupted and self._trainer.stop.exit_code == 128 + signal.SIGINT:
            self._trainer.stop.exit_code = 0
            self.experiments.append(self._interrupted)
            self._interrupted = None

    def conclude(self) -> None:
        """Compares the experiments, saves the best on demand, and prints the next command."""
        complete = [one for one in self.experiments if not one.run.interrupted]
        if not complete or self._interrupted:
            return
        best = max(complete, key=lambda experiment: experiment.score)
        if len(complete) > 1:
            self._compare([experiment.run.path for experiment in complete])
            if not self._args.no_plots:
                self.save_comparison()
        saved = best.run.path / MODEL_FILE
        if self._args.save:
            saved = best.save(self._args.save, overwrite=self._args.overwrite)
            first = ", which has the best value," if len(complete) > 1 else ""
            terminal.say(f"Saved {best.name}{first} as {terminal.relative(saved)}")
        terminal.print_as_is(f"Next: {shlex.join(self.task.next_command(saved))}")
        if self._args.show and not self.is_stopped:
            self.show_windows()

    def save_comparison(self) -> None:
        """Saves a figure that compares the experiments in the folder of the latest."""
        if len(self.experiments) < 2:
            return
        from cae.figures.comparisons import plot_comparison

        figure = plot_comparison([experiment.history for experiment in self.experiments])
        run = self.experiments[-1].run
        run.save_figures({"comparison": figure})
        path = run.path / "plots" / "comparison.png"
        terminal.say(f"Comparison: {terminal.relative(path)}")

    def show_windows(self) -> None:
        """Opens the figures of all experiments where there is a display."""
        from cae.figures.windows import show_windows

        show_windows(self.task.draw_all(self.experiments))

    def _full_name(self, name: str) -> str:
        """The name of a run: --name, made distinct where it would name several."""
        if self._args.name:
            name = self._args.name if len(self._args.config) < 2 else f"{self._args.name}-{name}"
        name = readable(name)  # figures show it
        taken = {experiment.name for experiment in self.experiments}
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        return next(name for name in itertools.chain([name], numbered) if name not in taken)

    @contextmanager
    def _joined_workers(self) -> Iterator[None]:
        """Joins the workers that --devices names, which train every model together."""
        if self._args.devices is None:
            yield
            return
        with terminal.starting_keras():
            from cae.training import data_parallel
        if self._args.devices == WORKERS:
            terminal.announce("Waiting for the other workers")
        _, *flags = shlex.split(self._args.command)
        command = [str(PROJECT / self.task.program), *flags]
        with data_parallel.joined(self._args.devices, command) as workers:
            if workers is None:
                terminal.warn(
                    f"--devices {self._args.devices}: found one device; training on it alone."
                )
            self._trainer.workers = workers
            yield


# --- With configurations, or without --------------------------------------------------------


def run(
    task: type[Task],
    args: argparse.Namespace,
    configs: list[tuple[str, Config]],
    compare: Compare,
    on_epoch: OnEpoch | None,
) -> int:
    """Trains the configurations; without any, asks for one and shows the menu.

    `compare` prints a table of several runs. Returns the exit code.
    """
    if args.print_config:
        if not configs:
            raise UsageError(
                "--print-config", "requires a configuration", "none", "Pass one with -c FILE."
            )
        sys.stdout.writelines(dump_config(config) for _, config in configs)
        return 0
    if args.show_augmentation:
        _check_augmentation(args, configs)
    else:
        check_destinations(args)
    input_shape, model = task.check(args)
    if not args.show_augmentation:  # a recipe names no encoder
        for path, (_, config) in zip(args.config, configs, strict=True):
            check_layers(config, model, input_shape, path)
    loaded = task.load(args, get_sample_seed(args, configs))
    if args.show_augmentation:
        return _show_augmentation(loaded, configs)
    session = Session(loaded, compare, on_epoch)
    return session.run(configs) if configs else _show_menu(session)


def _check_augmentation(args: argparse.Namespace, configs: list[tuple[str, Config]]) -> None:
    """Checks, before the data are read, that there is something to draw and where."""
    path = Path(args.show_augmentation)
    if path.suffix != ".png":
        raise UsageError("--show-augmentation", "must end in .png", path)
    if not (args.overwrite and path.is_file()):
        new_file(args.show_augmentation)
    if len(configs) != 1 or not configs[0][1].views:
        required = "requires one configuration that changes images"
        got = "one that does not" if len(configs) == 1 else f"{len(configs)} configurations"
        remedy = "Pass one with -c FILE that has augmentation, denoise or unlabelled."
        raise UsageError("--show-augmentation", required, got, remedy)


def _show_augmentation(task: Task, configs: list[tuple[str, Config]]) -> int:
    """Draws what a configuration makes of training images; returns the exit code."""
    path, ((_, config),) = Path(task.args.show_augmentation), configs
    with terminal.starting_keras():
        figures = task.draw_views(config, task.get_scaling(config))
    write_figures(path.parent, {path.stem: figures["augmentation"]})
    terminal.say(f"Figure: {path}")
    from cae.figures.windows import show_windows

    show_windows(figures.values())
    return 0


# --- The menu -------------------------------------------------------------------------------


def _show_menu(session: Session) -> int:
    """Trains a configuration, then shows the menu until Exit is chosen; returns the exit code."""
    if _is_classifier(session.task.args) and not _offer_test(session):
        return session.exit_code
    while not session.experiments and not session.is_stopped:
        _try(_train, session)
    session.conclude()
    texts, actions = zip(*CHOICES[session.task.kind], strict=True)
    while not session.is_stopped:
        terminal.say("")
        try:
            number = _choose("What next", texts, default=None)
        except prompts.InputEnded:
            break
        action = actions[number - 1] if number else None
        if action is None:
            break
        with suppress(prompts.Back):
            _try(action, session)
    return session.exit_code


def _choose(question: str, texts: Sequence[str], default: int | None) -> int | None:
    """A choice of a menu; None is Exit by Ctrl-D. `back` asks again."""
    while True:
        try:
            return prompts.choose(question, texts, default)
        except prompts.Left:
            return None
        except prompts.Back as back:
            if not back.is_typed:
                raise


def _is_classifier(args: argparse.Namespace) -> bool:
    """Whether the saved model that is given is a classifier."""
    model = getattr(args, "model", None)
    return model is not None and read_metadata(model).get("kind") == "classifier"


def _offer_test(session: Session) -> bool:
    """Offers to test the classifier that is given; returns whether to train another one."""
    model = session.task.args.model
    terminal.say(f"{model} is a trained classifier.")
    ways = ["Classify the test images with it", "Train a new classifier on its encoder", "Exit"]
    while (choice := _choose("Your choice", ways, default=1)) == 1:
        _try(lambda session: _evaluate_file(session, Path(model)), session)
    return choice == 2


def _try(action: Callable[[Session], None], session: Session) -> None:
    """Reports a mistake instead of ending the program, so that one can choose again."""
    try:
        action(session)
    except prompts.InputEnded:
        raise
    except UserError as error:
        terminal.report(error)


def _train(session: Session) -> None:
    task = session.task
    has_menu, latest = bool(session.experiments), session.latest
    session.train(*ask_config(task.kind, task.args, task.input_shape, latest, has_menu=has_menu))
    session.keep_interrupted()


def _show_graphs(session: Session) -> None:
    """Prints where the figures are, draws missing ones, and opens windows."""
    for experiment in session.experiments:
        plots = experiment.run.path / "plots"
        if not plots.exists():  # --no-plots
            session.task.save_figures(experiment)
        terminal.say(f"Figures of {experiment.name}: {terminal.relative(plots)}")
    session.save_comparison()
    session.show_windows()


def _save(session: Session) -> None:
    experiment = _choose_experiment(session)
    overwrite = session.task.args.overwrite

    def destination(name: str) -> Path:
        path = Path(name)
        is_new = path.suffix in MODEL_SUFFIXES and not path.parent.exists()
        if is_new and not prompts.confirm(f"Create the folder {path.parent}", True):
            raise ValueError(f"must be in a folder that exists, got {name}")
        return check_destination(path, overwrite)

    name = f"models/{Path(experiment.name).name}.keras"
    offered = name if overwrite else free_name(name)
    path = prompts.ask("Save as (.keras or .h5)", prompts.file_name(destination), offered)
    experiment.save(path, overwrite=overwrite)
    terminal.say(f"Saved {experiment.name} as {terminal.relative(path)}")


def _classify(session: Session) -> None:
    """Tests a model of this session, or a saved one, on the test images."""
    _check_test(session.task)
    experiment = _choose_experiment(session, "a saved classifier")
    if experiment is None:
        found = find_models("classifier", session.task.args.runs_dir, session.task.input_shape)
        path = prompts.ask_file("File of the classifier", _classifier_file, found)
        _evaluate_file(session, path)
    elif experiment.run.interrupted:
        _evaluate_file(session, experiment.run.path / MODEL_FILE)
    else:
        path, scaling = experiment.run.path / MODEL_FILE, experiment.scaling
        _record_test(session.task, experiment.name, path, experiment.evaluation, scaling)


def _evaluate_file(session: Session, path: Path) -> None:
    task = session.task
    _check_test(task)
    evaluation, scaling = evaluate_file(
        path, task.test, task.data, input_range=task.args.model_input_range
    )
    warn_of_looks(path, task.datasets, scaling, task.args, terminal.warn)
    _record_test(task, check_classifier(path), path, evaluation, scaling)


def _check_test(task: Task) -> None:
    if task.test is None:
        raise UsageError(
            "-t", "test images are required", "none", "Start again with -t TEST -tl TEST_LABELS."
        )


def _record_test(
    task: Task, name: str, path: Path, evaluation: Evaluation, scaling: Scaling
) -> None:
    from cae.figures.windows import show_windows

    run = Run(task.args.runs_dir, f"test-{name}")
    plots = not task.args.no_plots
    show_windows(record_test(run, path, task.test, evaluation, scaling, plots=plots).values())


def _choose_experiment(session: Session, *others: str) -> Experiment | None:
    """Asks for one of the experiments, the latest by default; None for one of `others`."""
    experiments = session.experiments
    if len(experiments) == 1 and not others:
        return experiments[0]
    texts = [f"{e.name}  {e.result}" for e in experiments]
    number = prompts.choose("Which model", [*texts, *others], len(experiments))
    return experiments[number - 1] if number <= len(experiments) else None


def _classifier_file(name: str) -> Path:
    read_metadata(name)
    return Path(name)


Action = Callable[[Session], None]
REPEAT = ("Repeat with different hyperparameters", _train)
SHOW = ("Show graphs", _show_graphs)
SAVE = ("Save a model", _save)
EXIT = ("Exit", None)
# The same order in both programs; only a classifier can classify.
CHOICES: dict[str, list[tuple[str, Action | None]]] = {
    "autoencoder": [REPEAT, SHOW, SAVE, EXIT],
    "classifier": [REPEAT, SHOW, ("Classify the test images", _classify), SAVE, EXIT],
}
