"""What made the files of a run.

From the records beside them: the settings that differ from the defaults, the command, and what is
there no longer as it was read.
"""
import argparse
import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from misc.command import options
from misc.contract.stages import Job, Output, Stage, Stages
from misc.files import inputs, records, weights


class Recorded(NamedTuple):
    """A stage whose output has a record.

    name: for people; differences: (flag, value, default) of each setting that differs; and
    everything of the record.
    """

    stage: Stage
    title: str
    changed: list[tuple[str, str, str]]
    record: dict[str, str]


def name_of(stage: Stage) -> str:
    """What people call what a stage makes."""
    if stage.shown is not None:
        return stage.shown.title
    return stage.name.removeprefix('train_').upper() if stage.trains else stage.name


def recorded(job: Job, files: Mapping[str, str | None] | None = None) -> list[Recorded]:
    """Of each stage of the pipeline whose first output has a record."""
    defaults = _defaults(job.stages)
    return [Recorded(stage, name_of(stage) + (' (training)' if stage.trains else ''),
                 [(flag, _text(value), _text(getattr(defaults, flag)))
                  for flag, value in _settings(stage, record, defaults)],
                 {name: _text(value) for name, value in sorted(record.items())})
            for stage, _, record in _records(job, files or job.files)]


def command(job: Job) -> list[str]:
    """Return the words of the command that makes what is there.

    That is run_sample.py with every flag that differs from its default. Of a flag that two stages
    were told differently, the first; the page's table has both.
    """
    words = ['--dataset', job.source.name, '--data_root', str(job.source.root)]
    made = [stage for stage, _, _ in _records(job, job.files)]
    work_dir = _work_dir(job)
    words += ['--work_dir', work_dir]
    words += [word for flag, (stage, output) in job.stages.outputs().items()
              if stage in made and output.kept and job.files[flag] != _usual(work_dir, output)
              for word in (f'--{flag}', str(job.files[flag]))]
    lists = type(job.source).lists
    words += [word for flag, value in job.lists.items() for word in (f'--{flag}', value)
              if value not in (lists.get(flag), None) and flag in lists]
    words += ['--stages', _ranges(job.stages, [stage for stage in job.stages if stage in made
                                               or _scores(stage, made)])]
    changed: dict[str, Any] = {}
    defaults = _defaults(job.stages)
    for stage, _, record in _records(job, job.files):
        for flag, value in _settings(stage, record, defaults):
            changed.setdefault(flag, value)
    for flag, value in (('pretrained', job.run.pretrained), *job.thresholds.items()):
        if value != getattr(defaults, flag):
            changed.setdefault(flag, value)
    return words + [word for flag, value in changed.items()
                    for word in (f'--{flag}', *map(str, value if isinstance(value, list)
                                                   else [value]))]


def differences(job: Job, other: Mapping[str, str | None]) -> list[tuple[str, str, str, str]]:
    """Return (what, setting, here, there) of each setting that another run has otherwise."""
    found = []
    theirs = {each.stage.name: each for each in recorded(job, other)}
    for here in recorded(job):
        there = theirs.get(here.stage.name)
        for name in sorted(here.record.keys() | there.record.keys()) if there else ():
            one, two = (each.record.get(name, 'not set') for each in (here, there))
            if one != two and name not in CONSEQUENCES:
                found.append((here.title, name, one, two))
    return found


# entries of records that are no setting: fingerprints of what was read
CONSEQUENCES = ('weights', 'activations', 'seeds', 'label_maps', 'masks', 'inputs', 'images',
                'code', 'cam_activations')


def stale(job: Job, ids: Sequence[str]) -> list[str]:
    """Return a sentence for each output that was made from something else than what is there now.

    That is another folder's or other weights' content, other photographs or labels of `ids`.
    """
    found, defaults = [], _defaults(job.stages)
    for stage, path, record in _records(job, job.files):
        again = f'run {stage.flag} True --overwrite True'
        args = argparse.Namespace(**vars(defaults) | dict(_settings(stage, record, defaults)))
        for read in stage.reads:
            source = job.files[read.flag] or job.files.get(read.fallback or read.flag)
            is_read = read.needed and read.when(args) and source is not None
            now = _fingerprint(source) if is_read else None
            if now not in (None, *record.values()) and 'unknown' not in record.values():
                found.append(f'{path} was made from another {source} than is there now; {again}')
        if Path(path).is_dir():
            changed = inputs.changes(path, job.source, ids)
            if changed:
                found.append(f'{path} was made from other inputs ({changed}); {again}')
    return found


def _fingerprint(path: str) -> str | None:
    """What a record calls a folder or weights that are read; None where these have no record."""
    if Path(path).is_dir():
        made_by = records.made_by(path)
        return None if made_by == 'unknown' else made_by
    there = weights.existing(path)
    if there is None or records.read_weights_record(path) is None:
        return None
    return weights.digest(weights.read_state(there))


def _records(job: Job, files: Mapping[str, str | None]) -> Iterator[tuple[Stage, str,
                                                                          dict[str, Any]]]:
    """Each stage whose first output has a record, the place and the record."""
    for stage in job.stages:
        path = files.get(stage.writes[0].flag) if stage.writes and not stage.overview else None
        if path is None:
            continue
        record = records.read_weights_record(path) if stage.trains else records.read_folder(path)
        if record is not None:
            yield stage, path, record


def _settings(stage: Stage, record: dict[str, Any],
              defaults: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Flag and value of each setting of a record that is not at its default."""
    seen = set()
    for cls in stage.settings:
        for field in dataclasses.fields(cls):
            flag = cls.flags()[field.name]
            if field.name not in record or field.name == 'pretrained' or flag in seen:
                continue  # what it started from is recorded by its content
            seen.add(flag)
            if record[field.name] != records.as_stored({'': getattr(defaults, flag)})['']:
                yield flag, record[field.name]


def _defaults(stages: Stages) -> argparse.Namespace:
    args = options.build_parser(stages).parse_args([])
    options.resolve_settings(stages, args)
    return args


def _text(value: Any) -> str:
    return ' '.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _scores(stage: Stage, made: Sequence[Stage]) -> bool:
    """Whether a stage does nothing but score what these made."""
    flags = {output.flag for each in made for output in each.writes}
    return bool(stage.rows) and not stage.writes and all(
        read.flag in flags for read in stage.reads if read.needed)


def _ranges(stages: Stages, chosen: Sequence[Stage]) -> str:
    """'train_cam..make_sem_seg,report'."""
    parts: list[list[str]] = []
    before = None
    for number, stage in enumerate(stages):
        if stage in chosen:
            if before == number - 1 and parts:
                parts[-1] = [parts[-1][0], stage.name]
            else:
                parts.append([stage.name])
            before = number
    return ','.join('..'.join(part) for part in parts)


def _usual(work_dir: str, output: Output) -> str:
    return str(Path(work_dir) / output.path)


def _work_dir(job: Job) -> str:
    """The folder below which most files lie at their usual places."""
    places = collections.Counter(
        path.removesuffix(output.path).rstrip('/') or '.'
        for flag, (_, output) in job.stages.outputs().items()
        if (path := job.files[flag]) is not None and path.endswith(output.path))
    return places.most_common(1)[0][0] if places else '.'
