"""What the screen says of a run first and last.

First: machine, data, stages and where they write; last: where the results are, and the next
command. The log file has every setting.
"""
import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from misc import torchutils
from misc.command import options, preflight
from misc.contract.sources import some
from misc.contract.stages import Job, Stage

PROGRAM = options.ROOT / 'run_sample.py'


def opening(args: argparse.Namespace, job: Job, chosen: Sequence[Stage], log_path: str) -> str:
    """Return the first screen, less what a run adds line by line."""
    processes = torchutils.world()[1]
    shared = f', {processes} processes' if processes > 1 else ''
    images: dict[str, list[str]] = {}
    for stage in chosen:
        images.setdefault(job.lists[stage.lists[0]], []).append(f'--{stage.lists[0]}')
    told = [f'{len(job.source.ids(name))} images of {name} ({", ".join(dict.fromkeys(flags))})'
            for name, flags in images.items() if job.source.ids(name)]
    classes = some(job.source.classes)
    flags = shlex.join(args.given.changed) or 'none'
    width = max(len(stage.name) for stage in chosen)
    return '\n'.join([
        f'AMN {job.version}: {torchutils.machine_line(job.device)}{shared}, seed {args.seed}',
        f'data: {job.source.name} {job.source.root}, {job.source.n_classes} classes ({classes})',
        *(f'      {each}' for each in told),
        f'flags that are not at their defaults: {flags}',
        f'stages, in {args.work_dir}:',
        *(f'  {stage.name:<{width}}  {stage.title}{_goes_to(args, stage)}' for stage in chosen),
        f'log, with every setting: {log_path}'])


def _goes_to(args: argparse.Namespace, stage: Stage) -> str:
    paths = [getattr(args, output.flag) for output in stage.writes if output.wanted(args)]
    paths += [args.scores_file] if stage.rows else []
    return f' -> {", ".join(_below(args.work_dir, path) for path in paths)}' if paths else ''


def _below(work_dir: str, path: str) -> str:
    """Return the path as seen from `work_dir`, where it lies in it."""
    whole, above = (Path(os.path.abspath(each)) for each in (path, work_dir))
    return str(whole.relative_to(above)) if whole.is_relative_to(above) else str(path)


def closing(args: argparse.Namespace, job: Job, chosen: Sequence[Stage]) -> str:
    """Return where the results are, which no chosen stage goes on with, and the next command."""
    gone_on = {flag for stage in chosen if stage.outputs(args) for flag in stage.inputs(args)}
    results = {output.flag: (stage.title if number == 0 else f'--{output.flag}',
                             str(Path(getattr(args, output.flag)) / output.opens))
               for stage in chosen for number, output in enumerate(stage.writes)
               if output.wanted(args) and output.flag not in gone_on
               and not output.implied(args)}
    lines = [f'{path}: {title}' for title, path in results.values()]
    if any(stage.rows for stage in chosen):
        lines.append(f'{args.scores_file}: the scores')
    masks = [stage for stage in chosen if stage.shown is not None and stage.shown.kind == 'mask'
             and stage.writes[0].flag in results]
    if masks and args.repeat == 1:
        where = '' if Path.cwd() == options.ROOT else f'PYTHONPATH={os.path.relpath(options.ROOT)} '
        command = shlex.join(['python', '-m', 'step.export', '--format', 'coco', 'DIR', '--what',
                              masks[-1].name, '--dataset', args.dataset, '--data_root',
                              args.data_root, '--work_dir', args.work_dir])
        lines.append(f'for other tools (--help lists their formats): {where}{command}')
    following = _following(args, job, chosen, results)
    if following is not None and args.repeat == 1:
        processes = torchutils.world()[1]
        words = [*options.without_stages(args.given.words),
                 *(['--gpus', str(processes)] if processes > 1 else [])]
        command = shlex.join(['python', os.path.relpath(PROGRAM), *words, '--stages',
                              following.name])
        lines.append(f'next ({following.title}): {command}')
    return '\n'.join(lines)


def _following(args: argparse.Namespace, job: Job, chosen: Sequence[Stage],
               made: Sequence[str]) -> Stage | None:
    """Return the first stage that needs one of the flags `made`, where all its inputs are there."""
    for stage in job.stages:
        needed = stage.inputs(args)
        if stage not in chosen and set(needed) & set(made) \
                and all(preflight.is_there(getattr(args, flag)) for flag in needed) \
                and (not preflight.scores(stage) or preflight.has_masks(job, stage)):
            return stage
    return None
