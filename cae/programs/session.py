"""The experiments of one start of a program: train, record, compare, and the menu after it.

`autoencoder.py` and `classification.py` each fill in what is theirs.
"""

import argparse
import datetime
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cae import prompts, terminal
from cae.config.fields import MAX_LEARNING_RATE, OPTIMIZERS
from cae.config.load import dump_config, load_config
from cae.config.schema import Config
from cae.data.datasets import Dataset, Scaling
from cae.data.splits import encode_labels, get_classes, split_validation
from cae.errors import UsageError, UserError
from cae.files import get_record, replace_file
from cae.programs import describe as describe_module
from cae.programs import start as start_module
from cae.records import tracking
from cae.records.checkpoint import Checkpoint, check_same
from cae.records.evaluation import Evaluation
from cae.records.history import History
from cae.records.run import (
    CHECKPOINT_FILE,
    Arguments,
    FileRecord,
    Run,
    Start,
    describe_environment,
    find_interrupted,
    read_start,
)
from cae.records.saved_models import check_destination, save_model
from cae.training import threads
from cae.training.workers import CLUSTER

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

    from cae.training.data_parallel import Workers


# Called with the history's row of every epoch, as soon as a checkpoint has seen it.
OnEpoch = Callable[[dict[str, Any]], None]
# Figures of single images and of clusters look at this many images, not at all of them.
INSPECTED_IMAGES = 1000


@dataclass
class Experiment:
    """One trained model and what is needed to show it again.

    Attributes:
        config: Its hyperparameters.
        model: The model with its best weights.
        history: How training went, and the final values.
        metadata: What is saved with the model.
        run: Its directory.
        split: Indices of the training and of the validation images.
        evaluation: Of a classifier, on the test images (on the validation images without any).
    """

    config: Config
    model: "keras.Model"
    history: History
    metadata: dict[str, Any]
    run: Run
    split: tuple[np.ndarray, np.ndarray]
    evaluation: Evaluation | None = None

    @property
    def name(self) -> str:
        """What it is called in figures and menus."""
        return self.history.name


class Session(ABC):
    """Trains one experiment after another on the same data.

    Args:
        args: The flags.
        data: The training images, with labels where there are any.
        on_epoch: Called with the row of every epoch; what it raises ends the training, which can
            then be resumed.

    Attributes:
        program: The file of the program.
        progress: What an epoch's line shows, as arguments of `ShowProgress`.
        args: The flags.
        data: The training images, with labels where there are any.
        classes: int64, the distinct labels, sorted; None without labels.
        class_names: Their names.
        experiments: In the order of their training.
        cores: How many of them compute a part of every batch by themselves; see `threads`.
        exit_code: 0, 2 when a configuration could not be trained, or 128 plus the signal that
            ended training.
    """

    program: str
    progress: tuple[tuple[str, ...], bool]

    def __init__(self, args: argparse.Namespace, data: Dataset, on_epoch: OnEpoch | None = None):
        self.args = args
        self.data = data
        self._on_epoch = on_epoch
        self.classes = None if data.labels is None else get_classes(data.labels)
        self.class_names = [
            data.class_names.get(label, str(label))
            for label in ([] if self.classes is None else self.classes.tolist())
        ]
        self.experiments: list[Experiment] = []
        self.exit_code = 0
        self._interrupted = False
        self._workers: Workers | None = None
        self.cores = 1

    @abstractmethod
    def ask_config(self) -> tuple[str, Config]:
        """Asks for hyperparameters; returns what to call them, and them."""

    @property
    @abstractmethod
    def choices(self) -> list[tuple[str, Callable[[], None] | None]]:
        """The menu: what each number says and does; the choice without an action ends it."""

    @abstractmethod
    def build(self, config: Config) -> "keras.Model":
        """An untrained model for the session's data."""

    @abstractmethod
    def fit(self, model: "keras.Model", config: Config, name: str, **hooks: Any) -> History:
        """Trains the model; `hooks` are arguments of `train_autoencoder` by the same names."""

    @abstractmethod
    def describe(self, config: Config) -> dict[str, Any]:
        """What there is to say before training beyond what every program says."""

    @abstractmethod
    def get_metadata(self, config: Config) -> dict[str, Any]:
        """What is saved with a model beyond what every program saves."""

    @abstractmethod
    def draw(self, experiment: Experiment) -> dict[str, "Figure"]:
        """The figures of one experiment."""

    @abstractmethod
    def draw_all(self) -> dict[str, "Figure"]:
        """The figures of all experiments, with `comparison` when there are several."""

    @abstractmethod
    def get_score(self, experiment: Experiment) -> float:
        """A validation value by which experiments are compared; larger is better."""

    @abstractmethod
    def next_command(self, saved: Path) -> str:
        """What to type next, given the file of the best model."""

    def model_files(self, config: Config) -> list[str]:
        """The saved models that training starts from."""
        return [self.args.init_from] if self.args.init_from else []

    def datasets(self) -> dict[str, Dataset]:
        """The data by their role."""
        return {"training": self.data}

    def evaluate(self, experiment: Experiment) -> None:  # noqa: B027 - only classifiers do
        """Measures a trained model on images that it has not seen."""

    def run(self, configs: list[tuple[str, Config]]) -> int:
        """Trains the configurations, or asks for one and shows the menu; returns the exit code."""
        if self.args.devices is None:
            return self._run(configs)
        if not configs:
            raise UsageError("--devices", "needs a configuration", "none", "Give one with -c FILE.")
        with terminal.starting_keras():
            from cae.training import data_parallel
        if self.args.devices == CLUSTER:
            terminal.ERR.print("Waiting for the other workers …")
        _, *flags = shlex.split(self.args.command)
        command = [str(Path(__file__).parents[2] / self.program), *flags]
        with data_parallel.joined(self.args.devices, command) as workers:
            if workers is None:
                terminal.warn(
                    f"--devices {self.args.devices} finds a single device: training is as usual."
                )
            self._workers = workers
            return self._run(configs)

    def _run(self, configs: list[tuple[str, Config]]) -> int:
        if configs:
            self._train_all(configs)
        else:
            while not self.experiments and not self._stopped:
                _try(self.repeat)
        if self.experiments and not self._interrupted:
            self.conclude()
            if self.args.show and not self._stopped:
                _show_windows(self.draw_all().values())
        if not configs:
            self.menu()
        return self.exit_code

    def _train_all(self, configs: list[tuple[str, Config]]) -> None:
        for name, config in configs:
            try:
                self.train(name, config)
            except UserError as error:
                if self._workers:
                    raise  # the others may not have failed
                self.exit_code = terminal.report(error)  # and on with the others
            if self._stopped:
                return

    @property
    def _stopped(self) -> bool:
        """Whether a signal ended training."""
        return self.exit_code > 128

    def repeat(self) -> None:
        """Asks for hyperparameters and trains them."""
        self.train(*self.ask_config())

    def train(self, name: str, config: Config) -> None:
        """Trains one model and records it as a run, or goes on with an interrupted one."""
        start = self._get_start(self._full_name(name), config)
        if self._workers and self._workers.share.index:
            self._follow(start, config)
            return
        with self._get_run(start.name) as run:
            if self.args.resume:
                start = _check_unchanged(run, start, config)
            else:
                run.begin(start)
            self.cores = start.cores
            threads.use_cores(start.cores)
            checkpoint = Checkpoint(run.checkpoint_path, start.to_json())
            with terminal.starting_keras():
                from cae.training import callbacks  # noqa: F401 - so that the rest is quick
            self._check_workers(start)
            model = self._build(config)
            # A signal while the run is written must not cost the training that it records.
            with (
                _telling_how_to_resume(run, self.program, self.args.devices),
                self._open_trackers(run, start, config, checkpoint) as trackers,
                start_module.StopSignal() as stop,
            ):
                experiment = self._train(run, start, config, model, checkpoint, stop, trackers)
                if not run.interrupted:
                    run.finish()  # a figure that fails must not cost the training
                    self._show(experiment)
                    trackers.finish(experiment.history, run.path)
        self._interrupted = run.interrupted
        self.exit_code = stop.exit_code or self.exit_code
        if experiment.history.divergence and not self._stopped:
            self.exit_code = terminal.report(experiment.history.divergence)

    def _follow(self, start: Start, config: Config) -> None:
        """Trains along with the first worker, which keeps the record."""
        checkpoint = None
        if self.args.resume:
            path = find_interrupted(self.args.resume)
            identity = read_start(path).to_json()
            checkpoint = Checkpoint(path / CHECKPOINT_FILE, identity, read_only=True)
        self._check_workers(start)
        model = self._build(config)
        with start_module.StopSignal() as stop:
            self.fit(
                model,
                config,
                start.name,
                should_stop=self._get_should_stop(stop),
                checkpoint=checkpoint,
                workers=self._workers,
            )
        self.exit_code = stop.exit_code or self.exit_code

    def _check_workers(self, start: Start) -> None:
        """Checks that all workers are about to train the same; after it the record may change."""
        if self._workers:
            files = [file for files in [*start.data.values(), start.models] for file in files]
            self._workers.check_same(
                [start.config, len(self.data.images), [file.sha256 for file in files]]
            )

    def _get_should_stop(self, stop: start_module.StopSignal) -> Callable[[], bool]:
        """Whether this worker, or any other, is to stop; all get the same answer."""

        def should_stop() -> bool:
            exit_code = max(self._workers.gather(stop.exit_code))
            stop.exit_code = exit_code or stop.exit_code
            return exit_code != 0

        return should_stop if self._workers else stop.requested

    def _get_run(self, name: str) -> Run:
        if self.args.resume:
            return Run.reopen(self.args.resume)
        return Run(self.args.runs_dir, name, self.args.run_dir)

    def _get_start(self, name: str, config: Config) -> Start:
        """What a run of these flags begins with."""
        arguments = {
            key: getattr(self.args, key) for key in Arguments.model_fields if key in self.args
        }
        if len(self.args.config) > 1:
            arguments["save"] = None  # of several the best, which one of them cannot know
        return Start(
            program=self.program,
            name=name,
            command=self.args.command,
            started=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            folder=str(Path.cwd()),
            arguments=Arguments(**arguments),
            config=config.model_dump(mode="json"),
            data={
                role: [FileRecord(**file) for file in data.files]
                for role, data in self.datasets().items()
            },
            models=[FileRecord(**get_record(path)) for path in self.model_files(config)],
            cores=self.cores,
        )

    def _open_trackers(
        self, run: Run, start: Start, config: Config, checkpoint: Checkpoint
    ) -> AbstractContextManager[tracking.RunTrackers]:
        subject = tracking.Subject(
            run.final_path.name,
            config.kind,
            run.path,
            tracking.describe(start.config),
            {"command": start.command, "data": self.data.name, "run": str(run.final_path)},
        )
        rows = checkpoint.state.rows if checkpoint.state else []
        return tracking.opened_for_run(self.args, subject, rows, terminal.warn)

    def _build(self, config: Config) -> "keras.Model":
        model = self.build(config)
        if self.args.init_from:
            from cae.training.build import start_from

            start_from(model, self.args.init_from)
        return model

    def _train(
        self,
        run: Run,
        start: Start,
        config: Config,
        model: "keras.Model",
        checkpoint: Checkpoint,
        stop: start_module.StopSignal,
        trackers: tracking.RunTrackers,
    ) -> Experiment:
        """Trains the model and writes its record: the final one, or the one so far."""
        from cae.training import batches
        from cae.training.callbacks import ShowProgress, TellEpochs

        images = self.data.images
        stratify = self.data.labels if config.kind == "classifier" else None
        split = split_validation(len(images), config.validation_split, config.seed, stratify)
        device = batches.device_name()
        if self._workers:
            device += f", {self._workers.share.count} workers"
        if self.cores > 1:
            device += ", each of which takes a part of every batch"
        if config.mixed_precision and not batches.computes_bfloat16():
            terminal.warn("This CPU has no bfloat16 instructions: mixed precision gains nothing.")
        terminal.show_facts(
            start.name,
            {
                "device": device,
                "images": describe_module.describe_images(images, *split),
                **self.describe(config),
                "parameters": describe_module.describe_parameters(model),
                "hyperparameters": describe_module.describe_hyperparameters(config),
                "destination": terminal.relative(run.final_path),
                **_describe_progress(checkpoint),
            },
        )
        environment = describe_environment(start.command, self.datasets(), device, config.seed)
        environment["started"] = start.started
        told = [TellEpochs(told) for told in (trackers.write_epoch, self._on_epoch) if told]
        with closing(ShowProgress(terminal.ERR, start.name, *self.progress)) as progress:
            history = self.fit(
                model,
                config,
                start.name,
                callbacks=[progress, *told],
                should_stop=self._get_should_stop(stop),
                checkpoint=checkpoint,
                workers=self._workers,
            )
        run.interrupted = stop.requested()
        history.metrics["parameters"] = model.count_params()
        metadata = {
            "kind": config.kind,
            "name": start.name,
            "input_shape": list(images.shape[1:]),
            "data": self.data.name,
            **self.get_metadata(config),
            **({"init_from": self.args.init_from} if self.args.init_from else {}),
            "model_info": history.model_info,
            "metrics": history.metrics,
        }
        experiment = Experiment(config, model, history, metadata, run, split)
        if not run.interrupted:
            self.evaluate(experiment)
        run.write_record(config, environment, history)
        save_model(model, run.path / "model.keras", metadata, overwrite=True)
        return experiment

    def _show(self, experiment: Experiment) -> None:
        """Draws the figures of a finished run, and says how it went."""
        figures = {} if self.args.no_plots else self.draw(experiment)
        saved = experiment.run.save_figures(figures)
        self.experiments.append(experiment)
        terminal.show_facts(f"{experiment.name}: done", self._results(experiment, saved))

    def conclude(self) -> None:
        """Compares several experiments, saves the best where asked, and says what to do next."""
        best = max(self.experiments, key=self.get_score)
        if len(self.experiments) > 1:
            terminal.say(f"Best on validation data: {best.name}")
            if not self.args.no_plots:
                self._save_comparison()
        saved = best.run.path / "model.keras"
        if self.args.save:
            saved = save_model(
                best.model, self.args.save, best.metadata, overwrite=self.args.overwrite
            )
            terminal.say(f"Saved {best.name} as {terminal.relative(saved)}")
        terminal.say(f"Next: {self.next_command(saved)}")

    def menu(self) -> None:
        """Asks what to do until the choice without an action is made, or a signal comes."""
        texts, actions = zip(*self.choices, strict=True)
        while not self._stopped:
            terminal.say("")
            action = actions[prompts.choose(terminal.OUT, "What next", texts, None) - 1]
            if action is None:
                return
            _try(action)

    def draw_encodings(
        self, model: "keras.Model", data: Dataset, scaling: Scaling, chosen: np.ndarray
    ) -> "Figure":
        """The encodings of the chosen images in two dimensions, coloured by class if known."""
        from cae.figures.encodings import encodings_visualization
        from cae.training.predict import predict

        encodings = predict(model.get_layer("encoder"), data.images, scaling, chosen)
        labels = data.labels
        if labels is not None:
            labels = encode_labels(labels[chosen], self.classes)
        return encodings_visualization(encodings, labels, self.class_names)

    def show_graphs(self) -> None:
        """Saves the comparison, and opens the figures in windows where there is a display."""
        self._save_comparison()
        for experiment in self.experiments:
            plots = experiment.run.path / "plots"
            if not plots.exists():  # --no-plots
                experiment.run.save_figures(self.draw(experiment))
            terminal.say(f"Figures of {experiment.name}: {terminal.relative(plots)}")
        _show_windows(self.draw_all().values())

    def ask_and_save(self) -> None:
        """Asks which model to save and where."""
        experiment = self.choose_experiment("Which model")

        def destination(name: str) -> Path:
            return check_destination(name, self.args.overwrite)

        path = prompts.ask(
            terminal.OUT,
            "Save as (.keras or .h5)",
            prompts.file_name(destination),
            f"models/{Path(experiment.name).name}.keras",
        )
        save_model(experiment.model, path, experiment.metadata, overwrite=self.args.overwrite)
        terminal.say(f"Saved {experiment.name} as {terminal.relative(path)}")

    def choose_experiment(self, question: str, *others: str) -> Experiment | None:
        """Asks for one of the experiments, the latest by default; None for one of `others`."""
        if len(self.experiments) == 1 and not others:
            return self.experiments[0]
        texts = [
            f"{e.name}  {describe_module.describe_result(e.history)}" for e in self.experiments
        ]
        number = prompts.choose(terminal.OUT, question, [*texts, *others], len(self.experiments))
        return self.experiments[number - 1] if number <= len(self.experiments) else None

    def _full_name(self, name: str) -> str:
        """The name of a run: --name, made distinct where it would name several."""
        if self.args.name:
            name = self.args.name if len(self.args.config) < 2 else f"{self.args.name}-{name}"
        taken = {experiment.name for experiment in self.experiments}
        number, unique = 1, name
        while unique in taken:
            number += 1
            unique = f"{name}-{number}"
        return unique

    def _save_comparison(self) -> None:
        if len(self.experiments) < 2:
            return
        from cae.figures.curves import plot_comparison

        figure = plot_comparison([experiment.history for experiment in self.experiments])
        (path,) = self.experiments[-1].run.save_figures({"comparison": figure})
        terminal.say(f"Comparison: {terminal.relative(path)}")

    def _results(self, experiment: Experiment, figures: list[Path]) -> dict[str, Any]:
        history, metrics = experiment.history, experiment.history.metrics
        folder = experiment.run.path
        files = sorted(path.name for path in folder.iterdir() if path.is_file())
        return {
            "best epoch": f"{metrics['best_epoch']} of {metrics['epochs']}"
            + (f" ({history.best['phase']})" if history.dense_only_epochs else ""),
            "values": describe_module.describe_result(history),
            "time": f"{metrics['seconds']:.1f} s, {metrics['images_per_second']:.0f} images/s",
            "run": terminal.relative(folder),
            "files": ", ".join(files),
            **({"figures": ", ".join(f"plots/{path.name}" for path in figures)} if figures else {}),
        }


@contextmanager
def _telling_how_to_resume(run: Run, program: str, devices: str | int | None) -> Iterator[None]:
    try:
        yield
    finally:
        if run.can_resume:
            command = ["python", program, "--resume", terminal.relative(run.path)]
            if devices:
                command += ["--devices", str(devices)]
            terminal.ERR.print(f"Resume with: {shlex.join(command)}")


def _check_unchanged(run: Run, now: Start, config: Config) -> Start:
    """What an interrupted run began with, after a comparison with what there is now."""
    start = read_start(run.path)
    start.check_files(now)
    written = run.path / "config.json"
    if written.exists():
        check_same(written, start.config, load_config(written, config.kind).model_dump(mode="json"))
    return start


def _describe_progress(checkpoint: Checkpoint) -> dict[str, str]:
    state = checkpoint.state
    if state is None:
        return {}
    batches = f" and {state.step} batches" if state.step else ""
    return {"resumed": f"after {len(state.rows)} epochs{batches}, {state.seconds:.1f} s"}


def _show_windows(figures: Iterable["Figure"]) -> None:
    from cae.figures import windows

    windows.show_windows(figures)


def ask_for_file(kind: str, default: str, load: Callable[[str], Config]) -> tuple[str, Config]:
    """Asks for a configuration file until one can be loaded; returns its name and content."""

    def parse(path: str) -> tuple[str, Config]:
        return Path(path).stem, load(path)

    return prompts.ask(
        terminal.OUT, f"Configuration file of the {kind}", prompts.file_name(parse), default
    )


def offer_to_save(config: Config) -> str | None:
    """Offers to keep typed hyperparameters as a file; returns its name if so."""
    if not prompts.confirm(terminal.OUT, "Save these hyperparameters as a configuration", False):
        return None
    path = prompts.ask(
        terminal.OUT,
        "File",
        prompts.file_name(prompts.new_file),
        f"configuration/my_{config.kind}.json",
    )
    try:
        with replace_file(path) as file:
            file.write(dump_config(config).encode())
    except OSError as error:
        terminal.warn(
            f"{path} could not be written: {error.strerror}. Training goes on without it."
        )
        return None
    terminal.say(f"Saved {path}")
    return path.stem


def ask_optimizer() -> list:
    """Asks for the optimizer and its learning rate."""
    name = prompts.ask(
        terminal.OUT,
        "Optimizer (adam, sgd, rmsprop or another of Keras)",
        prompts.one_of(list(OPTIMIZERS)),
        "adam",
    )
    rate = prompts.ask(
        terminal.OUT, "Learning rate", prompts.number(1e-9, MAX_LEARNING_RATE), 0.001
    )
    return [name, rate]


def _try(action: Callable[[], None]) -> None:
    """Does what was asked for and reports what is wrong with it, so that one can ask again."""
    try:
        action()
    except prompts.InputEnded:
        raise
    except UserError as error:
        terminal.report(error)
