"""What every model's main part shares: arguments, epochs of shuffled batches, progress, early stopping, the report.

The models build graphs; this drives a session over them.  It uses graphc through its public names alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from real_data import DataSet, Split
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


@dataclass(frozen=True)
class Model:
    """A built graph and its ends.

    x, y: placeholders of inputs and targets.  loss: scalar.  train: the op of one step.  metrics: name -> scalar tensor
    (means over the rows fed).  training: a bool placeholder that switches dropout on, or None.  train_loss: the loss
    that training steps report, where another tower computes it.
    """

    graph: Any
    x: Any
    y: Any
    loss: Any
    train: Any
    metrics: Mapping[str, Any]
    initializer: Any
    variables: Sequence[Any]
    training: Any = None
    train_loss: Any = None

    def feed(self, part: Split, train: bool = False) -> dict[Any, Any]:
        """Return what is fed for `part`."""
        feed = {self.x: part.x, self.y: part.y}
        return feed if self.training is None else feed | {self.training: train}


@dataclass
class History:
    """What a training run left behind: mean loss of each epoch, on the training rows and the validation rows.

    done: epochs before this run, of a checkpoint that it went on from.
    """

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0
    done: int = 0
    seconds: float = 0.0
    steps: int = 0


def batches(part: Split, size: int, rng: np.random.Generator) -> Iterator[Split]:
    """Yield every row once, in random order, `size` at a time (the last batch may be smaller)."""
    order = rng.permutation(len(part))
    for start in range(0, len(part), size):
        chosen = order[start : start + size]
        yield Split(part.x[chosen], part.y[chosen])


def shifted(part: Split, rng: np.random.Generator, shape: tuple[int, int, int], by: int, mirror: bool = False) -> Split:
    """Return the images of `part`, rows of height x width x channels, each moved by up to `by` pixels at random; with
    `mirror`, about half of them are mirrored.  Zeros come in at the borders."""
    height, width, _ = shape
    images = part.x.reshape(-1, *shape)
    wide = np.pad(images, ((0, 0), (by, by), (by, by), (0, 0)))
    top, left = rng.integers(0, 2 * by + 1, (2, len(images), 1, 1))
    rows, columns = np.arange(height)[:, None], np.arange(width)
    if mirror:
        columns = np.where(rng.random((len(images), 1, 1)) < 0.5, columns, columns[::-1])
    moved = wide[np.arange(len(images))[:, None, None], top + rows, left + columns]
    return Split(moved.reshape(len(images), -1), part.y)


def measure(session: Any, model: Model, part: Split, at_once: int = 1000) -> dict[str, float]:
    """Return the loss and the metrics over all rows of `part`, `at_once` in a run, so that the values in between stay
    small."""
    names = ["loss", *model.metrics]
    fetches = [model.loss, *model.metrics.values()]
    total = np.zeros(len(names))
    for start in range(0, len(part), at_once):
        rows = Split(part.x[start : start + at_once], part.y[start : start + at_once])
        total += len(rows) * np.array(session.run(fetches, model.feed(rows)), np.float64)
    return dict(zip(names, (total / max(1, len(part))).tolist(), strict=True))


def fit(
    session: Any,
    model: Model,
    data: DataSet,
    epochs: int,
    batch: int,
    patience: int | None = None,
    seed: int = 0,
    console: Console | None = None,
    tell: Callable[[int, float], None] | None = None,
    augment: Callable[[Split, np.random.Generator], Split] | None = None,
    better: Callable[[int], None] | None = None,
    done: int = 0,
) -> History:
    """Train for at most `epochs` epochs; with `patience`, stop once the validation loss has not improved for that many
    and go back to the best weights (early stopping: Prechelt, "Early stopping - but when?", 1998).

    tell: called with each epoch and its loss.  augment: changes the rows of each batch.  better: called with the epochs
    whose validation loss is the lowest so far.  done: epochs that the weights come from, the best so far: the run goes
    on with the next.
    """
    rng = np.random.default_rng(seed + done)
    history = History(done=done, best_epoch=max(0, done - 1))
    steps = -(-len(data.train) // batch)
    best, kept = float("inf"), None
    if done:
        best = measure(session, model, data.validation)["loss"]
        kept = session.run(list(model.variables)) if patience is not None else None
    reported = model.loss if model.train_loss is None else model.train_loss
    started = time.perf_counter()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=console is None or not console.is_terminal,
        transient=True,
    ) as progress:
        task = progress.add_task("training", total=(epochs - done) * steps)
        for epoch in range(done, epochs):
            total = 0.0
            for rows in batches(data.train, batch, rng):
                rows = rows if augment is None else augment(rows, rng)
                loss, _ = session.run([reported, model.train], model.feed(rows, train=True))
                total += float(loss) * len(rows)
                progress.advance(task)
                history.steps += 1
            history.train.append(total / len(data.train))
            history.validation.append(measure(session, model, data.validation)["loss"])
            progress.update(
                task,
                description=f"epoch {epoch + 1:3d}  loss {history.train[-1]:.4f}  "
                f"validation {history.validation[-1]:.4f}",
            )
            if tell is not None:
                tell(epoch, history.train[-1])
            if history.validation[-1] < best:
                best, history.best_epoch = history.validation[-1], epoch
                kept = session.run(list(model.variables)) if patience is not None else None
                if better is not None:
                    better(epoch)
            elif patience is not None and epoch - history.best_epoch >= patience:
                break
    if kept is not None:
        for variable, value in zip(model.variables, kept, strict=True):
            variable.load(value, session)
    history.seconds = time.perf_counter() - started
    return history


def report(
    console: Console, title: str, results: Mapping[str, Mapping[str, float]], history: History | None = None
) -> None:
    """Print a table: one row per part (train, validation, test), one column per figure."""
    table = Table(title=title, title_justify="left")
    table.add_column("part")
    names = list(next(iter(results.values())))
    for name in names:
        table.add_column(name, justify="right")
    for part, figures in results.items():
        table.add_row(part, *(f"{figures[n]:.2%}" if n == "accuracy" else f"{figures[n]:.4f}" for n in names))
    console.print(table)
    if history is not None:
        console.print(
            f"{history.steps} steps, {len(history.train)} epochs (best: {history.best_epoch + 1}) "
            f"in {history.seconds:.2f} s"
        )


def plot(path: str, history: History, title: str) -> None:
    """Write the loss curves as PNG (needs matplotlib: the [viz] extra)."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install 'graphc[viz]'") from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    epochs = range(history.done + 1, history.done + len(history.train) + 1)
    axes.plot(epochs, history.train, label="train")
    axes.plot(epochs, history.validation, label="validation")
    axes.axvline(history.best_epoch + 1, color="0.7", linestyle=":", label="best")
    axes.set(title=title, xlabel="epoch", ylabel="loss")
    axes.legend()
    figure.savefig(path)


def arguments(doc: str, argv: Sequence[str] | None, **defaults: Any) -> argparse.Namespace:
    """Parse what every model takes: --data, --epochs, --batch, --rate, --seed, --plot (defaults as given)."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", metavar="DIR", help="folder with data sets (else $GRAPHC_DATA, else the bundled ones)"
    )
    parser.add_argument("--epochs", type=int, default=defaults.pop("epochs"), help="at most so many (%(default)s)")
    parser.add_argument("--batch", type=int, default=defaults.pop("batch"), help="rows of a batch (%(default)s)")
    parser.add_argument("--rate", type=float, default=defaults.pop("rate"), help="learning rate (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and shuffling (%(default)s)")
    parser.add_argument("--plot", metavar="PNG", help="write the loss curve there")
    for name, default in defaults.items():
        parser.add_argument("--" + name, type=type(default), default=default, help="(%(default)s)")
    options = parser.parse_args(argv)
    if options.epochs < 1 or options.batch < 1:
        parser.error("--epochs and --batch must be at least 1")
    return options


def train_and_report(
    tf: Any,
    title: str,
    model: Model,
    data: DataSet,
    options: argparse.Namespace,
    patience: int | None = None,
    augment: Callable[[Split, np.random.Generator], Split] | None = None,
) -> dict[str, dict[str, float]]:
    """Train `model` on `data` as the arguments say, print the figures of the three parts, and return them.

    patience, augment: as of `fit`.
    """
    console = Console()
    console.print(
        f"{title}: {data.name}, {len(data.train)} rows to train on, {len(data.validation)} to validate, "
        f"{len(data.test)} to test"
    )
    with tf.Session(graph=model.graph) as session:
        session.run(model.initializer)
        history = fit(
            session, model, data, options.epochs, options.batch, patience, options.seed, console, augment=augment
        )
        results = {
            name: measure(session, model, part)
            for name, part in (("train", data.train), ("validation", data.validation), ("test", data.test))
        }
    report(console, title, results, history)
    if options.plot:
        plot(options.plot, history, f"{title} on {data.name}")
        console.print(f"loss curve: {options.plot}")
    return results
