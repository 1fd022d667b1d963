"""What a stage says of itself, once, and what a run gives it.

Flags, checks, remedies, scores, report and the table in docs/stages.md are made from this.
"""
import argparse
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from misc.contract import settings
from misc.contract.settings import Settings
from misc.contract.sources import Source
from misc.pyutils import UserError


def _always(args: argparse.Namespace) -> bool:
    return True


def _never(args: argparse.Namespace) -> bool:
    return False


@dataclasses.dataclass(frozen=True)
class Output:
    """A file or folder that a stage writes.

    flag: names it; path: its usual place below --work_dir; opens: the file in it that a person
    opens; kept: it is written without being asked for, else only where the flag is given, with a
    place or without, or where it is `implied`, at its usual place; when: whether this run writes
    it; help: what it is, where the flag's help needs more than the stage; holds: the same in a word
    or two, for a message; exists(path, id): whether an image's file is there, of what holds one for
    each image; megabytes: of an image of VOC's size, about; authors: the flag is theirs.
    """

    flag: str
    path: str
    kept: bool = True
    implied: Callable[[argparse.Namespace], bool] = _never
    when: Callable[[argparse.Namespace], bool] = _always
    help: str = ''
    metavar: str | None = None
    holds: str = 'it'
    exists: Callable[[str, str], bool] | None = None
    megabytes: float = 0.0
    authors: bool = False
    opens: str = ''

    def wanted(self, args: argparse.Namespace) -> bool:
        return getattr(args, self.flag) is not None and self.when(args)


@dataclasses.dataclass(frozen=True)
class Input:
    """A file or folder that a stage reads.

    flag: names it.
    needed: False for what is read where it is there.
    when: whether this run reads it.
    fallback: the flag whose output is read where this flag is not given.
    """

    flag: str
    needed: bool = True
    when: Callable[[argparse.Namespace], bool] = _always
    fallback: str | None = None
    help: str = ''

    @property
    def always(self) -> bool:
        """Whether every run reads it, and needs it."""
        return self.needed and self.when is _always

    def output_flag(self, args: argparse.Namespace) -> str:
        """The flag of the output that is read."""
        if self.fallback is not None and getattr(args, self.flag) == getattr(args, self.fallback):
            return self.fallback
        return self.flag


def _every_line(line: dict[str, Any]) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table of scores.

    stage: what its lines in the scores file are named by.
    title: for people.
    published: data set -> mIoU.
    matches: which of the lines of that stage are its.
    """

    stage: str
    title: str
    published: dict[str, float] = dataclasses.field(default_factory=dict)
    matches: Callable[[dict[str, Any]], bool] = _every_line


@dataclasses.dataclass(frozen=True)
class Shown:
    """How the report and the contact sheet show a stage's first output.

    kind: 'activation', 'mask', 'seed' or 'instances'; threshold: the flag of the threshold at which
    activations become masks.
    """

    title: str
    kind: str
    threshold: str | None = None


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    run(job, *settings) does it, with an object of each class of `settings`. lists: the flags of the
    lists it goes over, the first its own; labelled: it needs the image-level labels; trains: it
    trains a network, by batches whose size is the first settings' batch_size; masks: it needs the
    masks of its lists (of eval_set, where it has `rows`, in any case); may_be_empty: it does
    something where its list has no image; rows: the scores that it writes; overview: it reads what
    every other stage shows, where it is there, and --repeat makes it once more, of all seeds;
    check(job, chosen, *settings): what can be known to be wrong before the first stage runs; after:
    the stage that it follows, where it is none of the project's own.

    making(job, *settings): of a stage without a network that makes a file of each image from that
    image's file alone: opens its folder and returns what makes one (inference.Making), so that it
    may run beside the stage that feeds it; needs_all(*settings): why it cannot with these settings,
    '' where it can.
    """

    name: str
    title: str
    run: Callable[..., None]
    settings: tuple[type[Settings], ...] = ()
    reads: tuple[Input, ...] = ()
    writes: tuple[Output, ...] = ()
    lists: tuple[str, ...] = ('train_list',)
    labelled: bool = True
    trains: bool = False
    masks: bool = False
    may_be_empty: bool = False
    rows: tuple[Row, ...] = ()
    overview: bool = False
    shown: Shown | None = None
    check: Callable[..., None] | None = None
    after: str | None = None
    making: Callable[..., Any] | None = None
    needs_all: Callable[..., str] | None = None

    @property
    def flag(self) -> str:
        return f'--{self.name}_pass'

    def inputs(self, args: argparse.Namespace, needed: bool = True) -> list[str]:
        """The flags of what this run reads: what it needs, or what it takes where it is there."""
        return [each.output_flag(args) for each in self.reads if each.needed == needed
                and each.when(args)]

    def settings_of(self, args: argparse.Namespace) -> list[Settings]:
        """Return its settings, from the resolved command line."""
        return [cls.of(args) for cls in self.settings]

    def outputs(self, args: argparse.Namespace) -> list[str]:
        """The flags of what this run writes."""
        return [each.flag for each in self.writes if each.wanted(args)]


class Stages(Sequence[Stage]):
    """All stages, in pipeline order."""

    def __init__(self, stages: Iterable[Stage]):
        stages = tuple(stages)
        shown = tuple(Input(stage.writes[0].flag, needed=False) for stage in stages
                      if stage.shown is not None)
        self._stages = tuple(dataclasses.replace(stage, reads=shown) if stage.overview else stage
                             for stage in stages)

    def __getitem__(self, position: int) -> Stage:
        return self._stages[position]

    def __len__(self) -> int:
        return len(self._stages)

    def named(self, name: str) -> Stage:
        return next(stage for stage in self if stage.name == name)

    def with_more(self, more: Iterable[Stage]) -> 'Stages':
        """Return these and `more`, each after the stage that it names.

        Raises UserError for names that are taken or not there.
        """
        stages = list(self._stages)
        for stage in more:
            names = [each.name for each in stages]
            if stage.name in names:
                raise UserError(f'a stage {stage.name} is there already; give yours another name')
            if stage.after is not None and stage.after not in names:
                raise UserError(f'stage {stage.name}: there is no stage {stage.after!r} that it '
                                f'could come after')
            stages.insert(len(stages) if stage.after is None else names.index(stage.after) + 1,
                          stage)
        return Stages(stages)

    def outputs(self) -> dict[str, tuple[Stage, Output]]:
        """Return flag -> (stage, output), in pipeline order; of two that write it the first."""
        found: dict[str, tuple[Stage, Output]] = {}
        for stage in self:
            for output in stage.writes:
                found.setdefault(output.flag, (stage, output))
        return found

    def reader(self, flag: str, having: Callable[[Stage], bool]) -> Stage | None:
        """The first stage with `having` that reads, or else makes, the output of a flag."""
        def uses(stage: Stage) -> bool:
            return flag in [each.fallback or each.flag for each in stage.reads if each.needed]
        return next((stage for test in (uses, lambda stage: flag in (
            each.flag for each in stage.writes)) for stage in self if test(stage)
            and having(stage)), None)

    def files(self) -> dict[str, str]:
        """Return flag -> usual place below --work_dir, of outputs that need not be asked for."""
        return {flag: output.path for flag, (_, output) in self.outputs().items() if output.kept}

    def rows(self) -> tuple[Row, ...]:
        """Every line of the table of scores."""
        return tuple(row for stage in self for row in stage.rows)

    def settings(self) -> tuple[type[Settings], ...]:
        """Every class of settings, each once."""
        return tuple(dict.fromkeys(cls for stage in self for cls in stage.settings))


@dataclasses.dataclass
class Follower:
    """A stage that makes images beside the one that feeds it, as soon as their files are there.

    name: its own; beside: the other's; open(): opens its folder and returns what makes an image
    (inference.Making); workers: the processes that it may use; made: how many images were made so,
    None where it was never opened. What is left to do is done when its own turn comes.
    """

    name: str
    beside: str
    open: Callable[[], Any]
    workers: int
    made: int | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """What a run gives each of its stages: the data set, the lists, where files lie, the machine.

    run: the settings that no stage owns; lists: flag -> list file or split; files: flag -> path,
    None where it is not named; thresholds: flag -> value, of those at which activations are shown
    as masks; repeats: seed -> its files, of what --repeat made, for a stage that is of all seeds;
    follower: the stage that runs beside this one.
    """

    source: Source
    stages: Stages
    run: settings.Run
    device: torch.device
    lists: dict[str, str]
    files: dict[str, str | None]
    thresholds: dict[str, float | str] = dataclasses.field(default_factory=dict)
    version: str = ''
    commit: str = ''
    repeats: dict[int, dict[str, str | None]] = dataclasses.field(default_factory=dict)
    follower: Follower | None = None

    def ids(self, flag: str) -> list[str]:
        """The ids of a list, named by its flag."""
        return self.source.ids(self.lists[flag])

    def remedy(self, flag: str, more: str = 'first') -> str:
        """What makes the file or folder of a flag: 'run --make_cam_pass True first'."""
        return f'run {self.stages.outputs()[flag][0].flag} True {more}'
