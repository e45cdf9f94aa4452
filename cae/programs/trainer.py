"""Trains a configuration and records it: its run folder, checkpoint, trackers and figures."""

import datetime
import functools
import shlex
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cae import terminal
from cae.config.choices import RESIZE
from cae.config.load import add_new_keys, load_config
from cae.config.schema import Config
from cae.config.shapes import format_shape
from cae.data.appearance import describe as describe_appearance
from cae.data.datasets import Scaling
from cae.data.splits import split_validation
from cae.files import get_record
from cae.programs.images import get_reading, report_skipped, warn_of_looks
from cae.programs.start import StopSignal, find_command
from cae.programs.task import Experiment, Task
from cae.records import tracking
from cae.records.checkpoint import Checkpoint
from cae.records.environment import describe_environment
from cae.records.history import History, OnEpoch
from cae.records.run import (
    CHECKPOINT_FILE,
    MODEL_FILE,
    Arguments,
    FileRecord,
    Run,
    Start,
    check_same,
    find_interrupted,
    read_start,
)

if TYPE_CHECKING:
    import keras

    from cae.training.data_parallel import Workers


# What of the environment is saved with the model.
ORIGIN = ("started", "device", "versions", "git_commit", "data")


class Trainer:
    """Trains configurations one after another, each in a run folder of its own.

    Args:
        task: What to train.
        on_epoch: Receives the row of each epoch.
        names_resume: Whether to print the command that resumes an interrupted run.

    Attributes:
        workers: Those that train every model together; None without --devices.
        stop: The signals that came during training.
    """

    def __init__(self, task: Task, on_epoch: OnEpoch | None = None, *, names_resume: bool = True):
        self.workers: Workers | None = None
        self.stop = StopSignal()
        self._task = task
        self._args = task.args
        self._on_epoch = on_epoch
        self._names_resume = names_resume
        # Another configuration may cause the same warning.
        self._warn_once = functools.cache(terminal.warn)

    def train(self, name: str, config: Config) -> Experiment | None:
        """Trains a model and records it, or resumes an interrupted run.

        Returns:
            None in a worker other than the first, which keeps the record.
        """
        self._task.check_config(config)
        scaling = self._task.get_scaling(config)
        warn_of_looks(
            self._task.get_model_file(config),
            self._task.datasets,
            scaling,
            self._args,
            self._warn_once,
        )
        start = self.get_start(name, config, scaling)
        if self.workers and self.workers.share.index:
            return self._follow(start, config, scaling)
        with self._get_run(name) as run:
            if self._args.resume:
                start = _check_unchanged(run, start, config)
            else:
                run.begin(start)
                report_skipped(self._task.datasets.values(), run.path)
            checkpoint = Checkpoint(run.checkpoint_path, start.to_json())
            rows = checkpoint.state.rows if checkpoint.state else []
            model = self._build(start, config)
            # A signal while the run is written must not cost the training that it records.
            with (
                self._telling_how_to_resume(run),
                tracking.opened(self._args, run, start, rows, terminal.warn) as trackers,
                self.stop,
            ):
                experiment = self._train(run, start, config, scaling, model, checkpoint, trackers)
                if not run.interrupted:
                    run.finish()  # a figure that fails must not cost the training
                    self._conclude(experiment)
                    trackers.finish(experiment.history, run.path)
        return experiment

    def get_start(self, name: str, config: Config, scaling: Scaling) -> Start:
        """The content of `run.json`."""
        arguments = {
            key: getattr(self._args, key) for key in Arguments.model_fields if key in self._args
        }
        if len(self._args.config) > 1:
            arguments["save"] = None  # of several the best, which a single run cannot know
        model_file, sample = self._task.get_model_file(config), self._task.data.sample
        datasets = self._task.datasets
        training = [data.images for role, data in datasets.items() if role != "test"]
        return Start(
            program=self._task.program,
            name=name,
            command=self._args.command,
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            folder=str(Path.cwd()),
            arguments=Arguments(**arguments),
            config=config.model_dump(mode="json"),
            data={
                role: [FileRecord(**file) for file in data.files] for role, data in datasets.items()
            },
            models=[FileRecord(**get_record(model_file))] if model_file else [],
            sample=sample and sample.to_json(),
            appearance=describe_appearance(max(training, key=len), scaling),
        )

    def _get_run(self, name: str) -> Run:
        if self._args.resume:
            return Run.reopen(self._args.resume)
        return Run(self._args.runs_dir, name, self._args.run_dir)

    def _build(self, start: Start, config: Config) -> "keras.Model":
        with terminal.starting_keras():
            from cae.training import build, callbacks, train  # noqa: F401 - the rest is quick

        if self.workers:
            # Checked before the record changes.
            files = [file for files in [*start.data.values(), start.models] for file in files]
            data = [len(self._task.data.images), *(file.sha256 for file in files)]
            self.workers.check_same(configuration=start.config, data=data)
        model = self._task.build(config)
        if self._args.init_from:
            build.start_from(model, self._args.init_from)
        return model

    def _follow(self, start: Start, config: Config, scaling: Scaling) -> None:
        """Trains along with the first worker."""
        checkpoint = None
        if self._args.resume:
            path = find_interrupted(self._args.resume)
            identity = read_start(path).to_json()
            checkpoint = Checkpoint(path / CHECKPOINT_FILE, identity, read_only=True)
        model = self._build(start, config)
        with self.stop:
            self._fit(model, config, name=start.name, scaling=scaling, checkpoint=checkpoint)

    def _train(
        self,
        run: Run,
        start: Start,
        config: Config,
        scaling: Scaling,
        model: "keras.Model",
        checkpoint: Checkpoint,
        trackers: tracking.Trackers,
    ) -> Experiment:
        """Trains the model and writes its record: the final one, or the one so far."""
        from cae.training.callbacks import ShowProgress
        from cae.training.device import get_compute_dtype

        data = self._task.data
        stratify = data.labels if config.kind == "classifier" else None
        split = split_validation(
            len(data.images), config.validation_split, config.seed, stratify, data.validation
        )
        device, compute_dtype = self._name_device(), get_compute_dtype(config)
        facts = {
            "device": device,
            **_describe_training(data.images, split, model, config, compute_dtype),
            **self._task.describe(config),
            "destination": terminal.relative(run.final_path),
        }
        if state := checkpoint.state:
            batches = f" and {state.step} batches" if state.step else ""
            facts["resumed"] = f"after {len(state.rows)} epochs{batches}, {state.seconds:.1f} s"
        terminal.show_facts(start.name, facts)
        environment = describe_environment(start.command, self._task.datasets, device, config.seed)
        environment |= {"started": start.started, "compute_dtype": compute_dtype}

        def on_epoch(row: dict[str, Any]) -> None:
            trackers.write_epoch(row)
            if self._on_epoch:
                self._on_epoch(row)

        is_classifier = config.kind == "classifier"
        with closing(
            ShowProgress(terminal.ERR, start.name, self._task.shown_metrics, is_classifier)
        ) as progress:
            history = self._fit(
                model,
                config,
                name=start.name,
                scaling=scaling,
                checkpoint=checkpoint,
                callbacks=[progress],
                on_epoch=on_epoch,
            )
        run.interrupted = self.stop.requested()
        history.metrics["parameters"] = model.count_params()
        experiment = Experiment(config, model, history, scaling, run, split)
        experiment.metadata = self._get_metadata(experiment, environment, start)
        if not run.interrupted:
            self._task.evaluate(experiment)
        run.write_record(config, environment, history)
        experiment.save(run.path / MODEL_FILE, overwrite=True)
        return experiment

    def _fit(self, model: "keras.Model", config: Config, **arguments: Any) -> History:
        return self._task.fit(
            model,
            config,
            validation=self._task.data.validation,
            should_stop=shared_stop(self.stop, self.workers),
            workers=self.workers,
            warn=self._warn_once,
            **arguments,
        )

    def _name_device(self) -> str:
        from cae.training import device

        workers = f", {self.workers.share.count} workers" if self.workers else ""
        return device.get_name() + workers

    def _get_metadata(
        self, experiment: Experiment, environment: dict[str, Any], start: Start
    ) -> dict[str, Any]:
        """What is saved with the model."""
        task, history = self._task, experiment.history
        models = [model.model_dump() for model in start.models]
        resize = get_reading(self._args).resize
        return {
            "kind": task.kind,
            "name": experiment.name,
            "input_shape": list(task.input_shape),
            "data": task.data.name,
            "scaling": asdict(experiment.scaling),
            **({"resize": resize} if resize != RESIZE[0] else {}),
            **({"appearance": start.appearance} if start.appearance else {}),
            **task.get_metadata(experiment.config),
            **({"init_from": self._args.init_from} if self._args.init_from else {}),
            "model_info": history.model_info,
            "metrics": history.metrics,
            "origin": {key: environment[key] for key in ORIGIN} | {"models": models},
        }

    def _conclude(self, experiment: Experiment) -> None:
        """Draws the figures of a complete run, and prints how it went."""
        paths = [] if self._args.no_plots else self._task.save_figures(experiment)
        terminal.show_facts(f"{experiment.name}: done", _describe_run(experiment, paths))

    @contextmanager
    def _telling_how_to_resume(self, run: Run) -> Iterator[None]:
        try:
            yield
        finally:
            if run.can_resume and self._names_resume:
                flags = ["--resume", terminal.relative(run.path)]
                if self._args.devices:
                    flags += ["--devices", str(self._args.devices)]
                command = shlex.join([*find_command(self._task.program), *flags])
                terminal.ERR.print(f"Resume with: {command}")


def shared_stop(stop: StopSignal, workers: "Workers | None") -> Callable[[], bool]:
    """Tells whether this worker or any other has received a signal, all of them the same."""

    def should_stop() -> bool:
        exit_code = max(workers.gather(stop.exit_code))
        stop.exit_code = exit_code or stop.exit_code
        return exit_code != 0

    return should_stop if workers else stop.requested


def _check_unchanged(run: Run, now: Start, config: Config) -> Start:
    """Reads how an interrupted run began, and checks that files and configuration are the same."""
    start = read_start(run.path)
    start.check_files(now)
    written = run.path / "config.json"
    if written.exists():
        now_written = load_config(written, config.kind).model_dump(mode="json")
        check_same(written, add_new_keys(start.config, config.kind), now_written)
    return start


def _describe_training(
    images: np.ndarray,
    split: tuple[np.ndarray, np.ndarray],
    model: "keras.Model",
    config: Config,
    compute_dtype: str,
) -> dict[str, str]:
    """What is about to be trained, on which images, and how."""
    count, *shape = images.shape
    training, validation = split
    parts = [f"{part.name} {part.count_params():,}" for part in model.layers if part.weights]
    values = config.model_dump(mode="json")
    optimizer = " ".join(map(str, values["optimizer"]))
    optimizer += f" in {compute_dtype}" if config.mixed_precision else ""
    listed = [key for key in values if key.endswith("epochs")]
    listed += ["min_steps"] * (config.min_steps > 0) + ["batch_size", "seed", "loss"]
    return {
        "images": f"{count:,} of {format_shape(shape)}, {images.dtype}: {len(training):,} for "
        f"training, {len(validation):,} for validation",
        "parameters": f"{model.count_params():,} ({', '.join(parts)})",
        "hyperparameters": ", ".join(
            [optimizer, *(f"{key} {values[key]}" for key in listed if key in values)]
        ),
    }


def _describe_run(experiment: Experiment, figures: list[Path]) -> dict[str, str]:
    """The results of a complete run, and the files in its folder."""
    history, folder = experiment.history, experiment.run.path
    metrics = history.metrics
    best_epoch = f"{metrics['best_epoch']} of {metrics['epochs']}"
    if history.dense_only_epochs:
        best_epoch += f" ({history.best['phase']})"
    facts = {
        "best epoch": best_epoch,
        "values": experiment.result,
        "time": f"{metrics['seconds']:.1f} s, {metrics['images_per_second']:.0f} images/s",
        "run": terminal.relative(folder),
        "files": ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file())),
    }
    if figures:
        facts["figures"] = ", ".join(f"plots/{path.name}" for path in figures)
    return facts
