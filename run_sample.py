"""The command line: `python run_sample.py --data_root ROOT --train_cam_pass True --make_cam_pass True ...`

Checks everything that can be checked, then runs the chosen stages in pipeline order, whatever order they were named in. The
stages, and every flag with its default, stand in misc/options.py.
"""
import argparse
import importlib
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from misc import checking, ending, options, preflight, scores, torchutils
from misc.options import Stage
from misc.pyutils import elapsed, log, start_log

VERSION = '0.1.0'


def check_data(args: argparse.Namespace) -> int:
    """Print what is there and what is wrong. Returns the exit code: 1 where something must be mended."""
    text, is_good = checking.page(args.source, {name: getattr(args, name) for name in options.LISTS}, args.num_workers)
    print(text)
    if is_good:
        images = len(args.source.names(args.train_list))
        steps = [images // getattr(args, f'{name}_batch_size') * getattr(args, f'{name}_num_epoches')
                 for name in options.NETWORKS]
        few = ' Smaller batches (--cam_batch_size) and more epochs (--cam_num_epoches) make more.' if min(steps) < 100 else ''
        print(f'Steps of training with these flags: CAM {steps[0]}, AMN {steps[1]}, IRN {steps[2]} (published: 3305, 3305, '
              f'990).{few}')
    return 0 if is_good else 1


def git_commit() -> str:
    """Commit of this checkout, with '+' where files differ from it; 'unknown' outside git."""
    def git(*command: str) -> str:
        return subprocess.run(('git', *command), cwd=Path(__file__).parent, capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        return git('rev-parse', '--short=10', 'HEAD') + ('+' if git('status', '--porcelain', '-uno') else '')
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def log_provenance(args: argparse.Namespace, chosen: list[Stage]) -> None:
    """Version, commit, machine and settings: the first lines of every log."""
    log.info('AMN %s, commit %s, Python %s, %s, %d process(es), seed %d', args.version, args.commit, platform.python_version(),
             torchutils.machine_line(args.device), torchutils.world()[1], args.seed)
    settings = {key: value for key, value in sorted(vars(args).items()) if not key.endswith('_pass')
                and key not in ('source', 'version', 'commit', 'check_data', 'running', 'voc12_root')}  # data_root tells it
    log.info('settings: %s', ' '.join(f'{key}={value}' for key, value in settings.items()))
    log.info('stages: %s', ', '.join(stage.name for stage in chosen))
    for note in args.source.check(()).notes:
        log.info('note: %s', note)


def run(args: argparse.Namespace) -> int:
    """Run the chosen stages. Returns the exit code; raises UserError for what the user can mend."""
    chosen = [stage for stage in options.STAGES if getattr(args, f'{stage.name}_pass')]
    if not chosen and not args.check_data:
        print(f'error: no stage is named; give at least one of\n{options.stage_list()}', file=sys.stderr)
        return 2
    options.resolve_thresholds(args)
    options.resolve_files(args)
    options.resolve_recipe(args)
    args.device = torchutils.join_processes(torchutils.choose_device(args.device))
    torchutils.check_precision(args.precision, args.device)
    torchutils.set_deterministic(args.deterministic and args.device.type == 'cuda')  # the CPU always is
    options.resolve_lists(args)
    args.source = options.open_source(args)
    args.version, args.commit = VERSION, git_commit()
    if args.check_data:
        return check_data(args)
    preflight.check(args, chosen)
    name = Path(args.log_name)
    start_log(f'{name if name.parent != Path(".") else Path(args.work_dir) / "sess" / name}.log', torchutils.is_main())
    log_provenance(args, chosen)
    args.running = True
    if args.repeat == 1:
        run_stages(args, chosen)
    else:
        repeats = [seeded(args, chosen, args.seed + number) for number in range(args.repeat)]
        for one in repeats:
            log.info('=== seed %d', one.seed)
            run_stages(one, chosen)
        if torchutils.is_main():
            report_spread(repeats, chosen)
    torchutils.leave_processes()
    return 0


def run_stages(args: argparse.Namespace, chosen: list[Stage]) -> None:
    """The chosen stages, one after the other."""
    begun = time.monotonic()
    for stage in chosen:
        since = time.monotonic()
        log.info('=== %s: %s', stage.name, stage.help)
        with ending.explained(ending.remedy_of(stage.name, args)):
            importlib.import_module(f'step.{stage.name}').run(args)
        torchutils.wait_for_all()
        log.info('=== %s took %s', stage.name, elapsed(since))
    if len(chosen) > 1:
        log.info('=== all %d stages took %s', len(chosen), elapsed(begun))


def seeded(args: argparse.Namespace, chosen: list[Stage], seed: int) -> argparse.Namespace:
    """`args` with another seed: what the chosen stages write, and their scores, move to the folder seed_N of --work_dir
    (of their own folder, where they lie elsewhere)."""
    def moved(path: str) -> str:
        work_dir, whole = (Path(os.path.abspath(each)) for each in (args.work_dir, path))  # 'result/../..' is no part of it
        base = work_dir if whole.is_relative_to(work_dir) else whole.parent
        return str(base / f'seed_{seed}' / whole.relative_to(base))

    outputs = {stage.writes for stage in chosen if stage.writes} | {'scores_file'}
    if 'seg_out_dir' in outputs:
        outputs.add('seg_crf_out_dir')
    if 'sem_seg_out_dir' in outputs and args.walked_out_dir is not None:
        outputs.add('walked_out_dir')
    if 'sem_seg_out_dir' in outputs and args.seg_label_dir == args.sem_seg_out_dir:
        outputs.add('seg_label_dir')
    if 'ins_seg_out_dir' in outputs and args.ins_seg_coco_json is not None:
        outputs.add('ins_seg_coco_json')
    if preflight.trainings_of(chosen) and args.tensorboard is not None:
        outputs.add('tensorboard')
    return argparse.Namespace(**vars(args) | {'seed': seed} | {name: moved(getattr(args, name)) for name in outputs})


def report_spread(repeats: list[argparse.Namespace], chosen: list[Stage]) -> None:
    """Mean and standard deviation (of single runs, n - 1) of the scores of every seed: a table in the log. A score that
    is not defined for one of them is left out."""
    scored = [stage.name for stage in chosen if stage.name.startswith('eval_')]
    if not scored:
        return
    if 'eval_seg' in scored and repeats[0].seg_crf:
        scored.append('eval_seg_crf')
    last = [scores.read_scores(one.scores_file) for one in repeats]
    rows = []
    for stage in scored:
        for name, title in (('miou', stage), ('best_miou', f'{stage}, at its best threshold'), ('map', f'{stage}, mean AP')):
            values = [one[stage].get(name) for one in last]
            if None not in values:
                rows.append((title, statistics.mean(values), statistics.stdev(values), *values))
    if rows:
        log.info('%s', scores.table(('mIoU in %', 'mean', 'deviation', *(f'seed {one.seed}' for one in repeats)), rows))


def main(arguments: list[str] | None = None) -> int:
    args = options.build_parser().parse_args(arguments)
    args.running = False

    def tell(line: str) -> None:
        whose = '' if torchutils.is_main() else f'process {torchutils.world()[0]}: '
        log.info('%s%s', whose, line, extra={'file_only': True})  # the screen has it on stderr
        stopped = line.startswith('stopped')
        if os.environ.get('LOCAL_RANK', '0') == '0' or (args.running and not stopped):  # else all processes say the same
            print(line, file=sys.stderr)

    return ending.run(lambda: run(args), again='; the same command goes on', tell=tell)


if __name__ == '__main__':
    sys.exit(main())
