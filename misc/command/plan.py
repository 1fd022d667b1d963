"""What `--dry_run` prints: the chosen stages, images, steps, what is done, and the disk."""
import argparse
from collections.abc import Sequence

from misc import training
from misc.contract.stages import Job, Output, Stage
from misc.files import weights
from misc.score.scores import table


def text(args: argparse.Namespace, job: Job, chosen: Sequence[Stage]) -> str:
    """A table for people. Disk is an estimate, for photographs of VOC's size."""
    rows, megabytes = [], 0.0
    for stage in chosen:
        ids = job.ids(stage.lists[0])
        made = [output for output in stage.writes if output.wanted(args)]
        done = _done(made, job, ids) if made else None
        needed = sum(output.megabytes * (len(ids) - (done or 0)) for output in made)
        megabytes += needed
        rows.append((stage.name, str(len(ids)), _steps(stage, args, len(ids)), _told(done, stage),
                     _size(needed)))
    lists = '\n'.join(f'--{name} {job.lists[name]}: {len(job.ids(name))} images'
                      for name in dict.fromkeys(name for stage in chosen for name in stage.lists)
                      if job.ids(name))
    return '\n\n'.join((table(('stage', 'images', 'steps', 'done', 'disk, about'), rows), lists,
                        f'About {_size(megabytes) if megabytes else "no"} more on the disk. '
                        f'Nothing was run (--dry_run).'))


def _done(made: Sequence[Output], job: Job, ids: Sequence[str]) -> int:
    """How many images have their files of every kind; 1 where a file that is not an image's is
    there.
    """
    each = [output for output in made if output.exists is not None]
    if not each:
        return int(all(weights.existing(job.files[output.flag]) is not None for output in made))
    return sum(all(output.exists(job.files[output.flag], image_id) for output in each)
               for image_id in ids)


def _told(done: int | None, stage: Stage) -> str:
    if stage.trains:
        return 'yes' if done else 'no'
    return ('' if done is None or all(output.exists is None for output in stage.writes)
            else str(done))


def _steps(stage: Stage, args: argparse.Namespace, images: int) -> str:
    if not stage.trains:
        return ''
    settings = stage.settings_of(args)[0]
    steps = getattr(settings, 'steps', None)
    return str(training.steps_of(images, settings.batch_size, settings.epochs, stage.name)
               if steps is None
               else steps)


def _size(megabytes: float) -> str:
    if not megabytes:
        return ''
    return f'{megabytes / 1000:.1f} GB' if megabytes >= 1000 else f'{megabytes:.0f} MB'
