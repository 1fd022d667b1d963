#!/usr/bin/env python3
"""The command line: it checks everything that can be checked, then runs the chosen stages.

    python run_sample.py --data_root ROOT --stages train_cam..eval_sem_seg

or the authors' way, with a flag a stage:

    python run_sample.py --voc12_root ROOT --train_cam_pass True --make_cam_pass True ...

Stages run in pipeline order, whatever order they were named in. What a stage is stands in its file
in step/; every setting, with its default, in misc/contract/settings.py.
"""
import argparse
import dataclasses
import functools
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from misc import ending, torchutils
from misc.command import beside, checking, fitting, launch, options, plan, preflight, screen
from misc.contract import settings
from misc.contract.stages import Job, Stage, Stages
from misc.pyutils import elapsed, log, start_log
from misc.score import results
from step.pipeline import STAGES

VERSION = '0.1.0'


def check_data(job: Job, args: argparse.Namespace) -> int:
    """Print what is there and what is wrong.

    Returns the exit code: 1 where something must be mended.
    """
    text, is_good = checking.page(job.source, {name: job.lists[name]
                                               for name in options.CHECKED_LISTS}, job.run.workers,
                                  args.check_data != 'quick',
                                  functools.partial(checking.memory, args))
    print(text)
    if is_good:
        images = len(job.ids('train_list'))
        steps = [images // training.batch_size * training.epochs for training in (
            cls.of(args) for cls in (settings.CamTraining, settings.AmnTraining,
                                     settings.IrnTraining))]
        few = (' Smaller batches (--cam_batch_size) and more epochs (--cam_num_epoches) make more.'
               if min(steps) < 100 else '')
        print(f'Steps of training with these flags: CAM {steps[0]}, AMN {steps[1]}, IRN {steps[2]} '
              f'(published: 3305, 3305, '
              f'990).{few}')
    return 0 if is_good else 1


def git_commit() -> str:
    """Commit of this checkout, with '+' where files differ from it; 'unknown' outside git."""
    def git(*command: str) -> str:
        return subprocess.run(('git', *command), cwd=Path(__file__).parent, capture_output=True,
                              text=True, check=True).stdout.strip()
    try:
        return git('rev-parse', '--short=10', 'HEAD') + ('+' if git('status', '--porcelain', '-uno')
                                                         else '')
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def log_provenance(args: argparse.Namespace, job: Job, chosen: Sequence[Stage],
                   log_path: str) -> None:
    """Log version, commit, machine and every setting: the first lines of each log file.

    The screen has what a person wants to know in their place.
    """
    if not torchutils.is_main():
        return
    only = {'extra': {'file_only': True}}
    log.info('AMN %s, commit %s, Python %s, %s, %d process(es), seed %d', job.version, job.commit,
             platform.python_version(), torchutils.machine_line(job.device), torchutils.world()[1],
             args.seed, **only)
    # data_root tells voc12_root
    told = {key: value for key, value in sorted(vars(args).items()) if not key.endswith('_pass')
            and key not in ('check_data', 'dry_run', 'given', 'ranged', 'running', 'voc12_root')}
    log.info('settings: %s', ' '.join(f'{key}={value}' for key, value in told.items()), **only)
    log.info('stages: %s', ', '.join(stage.name for stage in chosen), **only)
    log.info('%s', screen.opening(args, job, chosen, log_path), extra={'screen_only': True})
    for note in job.source.check(()).notes:
        log.info('note: %s', note)


def job_of(args: argparse.Namespace, stages: Stages) -> Job:
    """What every stage of this run is given. Raises UserError where there is no such data set."""
    source = options.open_source(args)
    files = {flag: getattr(args, flag) for flag in ('scores_file', *stages.outputs(),
                                                    *options.further_inputs(stages))}
    thresholds = {stage.shown.threshold: getattr(args, stage.shown.threshold)
                  for stage in stages if stage.shown and stage.shown.threshold}
    return Job(source, stages, settings.Run.of(args), args.device,
               {name: getattr(args, name) for name in options.LISTS}, files,
               thresholds, VERSION, git_commit())


def run(args: argparse.Namespace, stages: Stages) -> int:
    """Run the chosen stages. Returns the exit code; raises UserError for what the user can mend."""
    chosen = [stage for stage in stages if getattr(args, f'{stage.name}_pass')]
    if not chosen and not args.check_data:
        print(f'error: no stage is named; give at least one of\n{options.stage_list(stages)}',
              file=sys.stderr)
        return 2
    options.resolve(stages, args)
    args.device = torchutils.join_processes(torchutils.choose_device(args.device))
    args.precision = torchutils.choose_precision(args.precision, args.device)
    # the CPU always is
    torchutils.set_deterministic(args.deterministic and args.device.type == 'cuda')
    job = job_of(args, stages)
    told = []
    if args.fit_to_images:
        told.append(fitting.fit(args, len(job.ids('train_list')), args.given.named))
    if args.check_data:
        return check_data(job, args)
    chosen, left_out = preflight.without_scores(args, job, chosen)
    told += [left_out] if left_out else []
    preflight.check(args, job, chosen)
    if args.dry_run:
        print('\n\n'.join([plan.text(args, job, chosen), *told]))
        return 0
    name = Path(args.log_name)
    log_path = f'{name if name.parent != Path(".") else Path(args.work_dir) / "sess" / name}.log'
    start_log(log_path, torchutils.is_main())
    log_provenance(args, job, chosen, log_path)
    for line in told:
        log.info('%s', line)
    args.running = True
    if args.repeat == 1:
        run_stages(args, job, chosen)
    else:
        repeats = [seeded(args, chosen, args.seed + number) for number in range(args.repeat)]
        for one in repeats:
            log.info('=== seed %d', one.seed)
            run_stages(one, job_of(one, stages), chosen)
        if torchutils.is_main():
            report_spread(repeats, chosen)
        overview = [stage for stage in chosen if stage.overview]
        if overview:
            run_stages(args, of_all(args, repeats, stages, overview), overview)
    torchutils.leave_processes()
    return 0


def of_all(args: argparse.Namespace, repeats: Sequence[argparse.Namespace], stages: Stages,
           overview: Sequence[Stage]) -> Job:
    """Return the job of stages that are of all seeds.

    Files are those of the first seed, and what they write lies where `args` has it.
    """
    jobs = {one.seed: job_of(one, stages) for one in repeats}
    written = {output.flag for stage in overview for output in stage.writes}
    first = next(iter(jobs.values()))
    return dataclasses.replace(
        first, files=first.files | {flag: getattr(args, flag) for flag in written},
        repeats={seed: job.files for seed, job in jobs.items()})


def run_stages(args: argparse.Namespace, job: Job, chosen: Sequence[Stage]) -> None:
    """The chosen stages, one after the other; one may begin beside the one that feeds it."""
    begun, followers = time.monotonic(), {}
    for stage in chosen:
        since = time.monotonic()
        log.info('=== %s: %s', stage.name, stage.title)
        follower, itself = (beside.follower_of(args, job, chosen, stage),
                            followers.pop(stage.name, None))
        with ending.explained(ending.remedy_of(stage.name, args)):
            stage.run(beside.job_of(job, follower, itself), *stage.settings_of(args))
        torchutils.wait_for_all()
        log.info('=== %s took %s%s', stage.name, elapsed(since), '' if itself is None else
                 f' after {itself.made} images beside {itself.beside}')
        if follower is not None and follower.made is not None:
            followers[follower.name] = follower
    if len(chosen) > 1:
        log.info('=== all %d stages took %s', len(chosen), elapsed(begun))
    scored = any(stage.rows for stage in chosen)
    if scored and len(chosen) > 1 and torchutils.is_main() and Path(args.scores_file).is_file():
        log.info('%s', results.table(args.scores_file, job.stages.rows(), published=True))
    log.info('%s', screen.closing(args, job, chosen))


def seeded(args: argparse.Namespace, chosen: Sequence[Stage], seed: int) -> argparse.Namespace:
    """Return `args` with another seed, and with places of its own for what is written.

    What the chosen stages write, and their scores, move to the folder seed_N of --work_dir (of
    their own folder, where they lie elsewhere).
    """
    def moved(path: str) -> str:
        # 'result/../..' is no part of it
        work_dir, whole = (Path(os.path.abspath(each)) for each in (args.work_dir, path))
        base = work_dir if whole.is_relative_to(work_dir) else whole.parent
        return str(base / f'seed_{seed}' / whole.relative_to(base))

    outputs = {output.flag for stage in chosen for output in stage.writes
               if getattr(args, output.flag) is not None}
    outputs |= {read.flag for stage in chosen for read in stage.reads
                if read.output_flag(args) in outputs} | {'scores_file'}
    if preflight.trainings_of(chosen) and args.tensorboard is not None:
        outputs.add('tensorboard')
    return argparse.Namespace(**vars(args) | {'seed': seed} |
                              {name: moved(getattr(args, name)) for name in outputs})


def report_spread(repeats: Sequence[argparse.Namespace], chosen: Sequence[Stage]) -> None:
    """The table of scores of all seeds together, in the log: mean and deviation."""
    rows = [row for stage in chosen for row in stage.rows]
    if rows:
        log.info('%s', results.table({f'seed {one.seed}': one.scores_file for one in repeats}, rows,
                                     published=True, others=False))


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    started = argparse.Namespace(running=False, ranged=set())

    def work() -> int:
        given = options.with_preset(words)
        stages = options.with_stages_of(STAGES, given)
        parser = options.build_parser(stages)
        args = parser.parse_args(given, started)
        args.given = options.given(parser, words, given, args)
        return (run(args, stages) if args.gpus is None
                else launch.run_on_gpus(args.gpus, __file__, given))

    def tell(line: str) -> None:
        whose = '' if torchutils.is_main() else f'process {torchutils.world()[0]}: '
        log.info('%s%s', whose, line, extra={'file_only': True})  # the screen has it on stderr
        stopped = line.startswith('stopped')
        # else all processes say the same
        if os.environ.get('LOCAL_RANK', '0') == '0' or (started.running and not stopped):
            print(line, file=sys.stderr)

    return ending.run(work, again='; the same command goes on', tell=tell)


if __name__ == '__main__':
    sys.exit(main())
