"""The command line: flags made from the stages' settings, and what unset ones stand for."""
import argparse
import importlib
import importlib.util
import os
import re
import shlex
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from coco14.dataloader import COCO14
from folder.dataloader import Folder
from misc.contract import settings
from misc.contract.settings import boolean, boolean_or
from misc.contract.sources import Source
from misc.contract.stages import Input, Stage, Stages
from misc.parsing import Parser, nearest, underscored
from misc.pyutils import UserError
from voc12.dataloader import VOC12

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / 'script' / 'presets'
SCORES = 'result/scores.jsonl'  # below --work_dir
USUAL = ''  # a flag without a path: the usual place
TOLD_ELSEWHERE = ('dataset', 'data_root', 'voc12_root', 'work_dir')  # on the first screen
ALIASES = {'--from_released': 'released'}  # -> preset
READ_FIRST = (*ALIASES, '--stage_from')  # before there is a parser


LISTS = {'train_list': 'images to train on and to make activations for: a list file or a split of '
                       'the root; NAME::100 is every '
                       '100th of them',
         'val_list': 'images whose loss is printed while CAM is trained',
         'infer_list': 'images to make pseudo-masks for, within the train list; for VOC '
                       'voc12/train_aug.txt for masks to train '
                       'a segmentation network on',
         'mask_list': 'images to make pseudo-masks and instance masks for, where these are others '
                      'than --infer_list; '
                      'train_list for those of --train_list',
         'eval_set': 'the split to score on: a split of the root or a list file; its masks are '
                     'needed',
         'seg_list': 'images to segment and score: a list file or a split of the root; test for '
                     'the evaluation server, in the '
                     'layout that it wants'}
CHECKED_LISTS = ('train_list', 'val_list', 'infer_list', 'eval_set')  # by --check_data
DATASETS = {source.name: source for source in (VOC12, COCO14, Folder)}
# settings that no stage alone declares
SHARED = (settings.Run, settings.SharedThresholds, settings.SegForm)
GROUPS = ('machine and run', 'thresholds of both stages', 'CAM', 'refined seeds', 'AMN', 'IRN',
          'random walk', 'threshold analysis', 'report', settings.SEGMENTATION)
DESCRIPTIONS = {settings.SEGMENTATION:
                "trained on the pseudo-masks. Where no default is shown it is the recipe's: "
                "'advcam', as AMN's authors trained "
                "it (AdvCAM#9), or 'deeplab', kazuto1011/deeplab-pytorch"}


def classes_of(stages: Stages) -> tuple[type[settings.Settings], ...]:
    """Every class of settings that has flags."""
    return tuple(dict.fromkeys((*SHARED, *stages.settings())))


def build_parser(stages: Stages) -> Parser:
    """All flags: of the stages, the data, the settings by their groups, the files."""
    parser = Parser(
        description='AMN: pseudo-masks from image-level labels. Name at least one stage.',
        usage='python run_sample.py [--dataset NAME] --data_root ROOT --STAGE_pass True ... [flags]'
              '\n       python run_sample.py --preset own --data_root MINE [flags]',
        formatter_class=_Help, epilog='stages, in pipeline order:\n' + stage_list(stages))
    described = 'each False unless named; they run in this order'
    group = parser.add_argument_group('stages', described).add_argument
    for stage in stages:
        group(stage.flag, type=boolean, nargs='?', const=True, default=False, metavar='True|False',
              help=stage.title)
    group('--stages', metavar='A..B,C', type=_stages_type(stages), action=_ChooseStages,
          default=argparse.SUPPRESS, help='the same by names: one stage, or a range of them with '
                                          'those that score them, or several of either: '
          'train_cam..eval_sem_seg,report')
    add_stage_from(group)
    group('--preset', metavar='NAME|FILE',
          help='flags from a file, a line each, over which those of the command line win: '
          f'{", ".join(preset_names())}, or a file of your own; --from_released is --preset '
          f'released')
    group('--dry_run', type=boolean, nargs='?', const=True, default=False, metavar='True|False',
          help='print the stages, '
          'their images, steps and disk, and what is done already; then stop')
    group('--print_completion', choices=('bash', 'zsh'), action=_PrintCompletion,
          default=argparse.SUPPRESS, help='print what completes the flags in this shell (docs/'
          'completion.md; needs shtab), then stop')

    group = parser.add_argument_group('data').add_argument
    add_data_flags(group)
    for name, text in LISTS.items():
        aliases = ('--chainer_eval_set',) if name == 'eval_set' else ()  # the authors' name
        shown = '[as --infer_list]' if name == 'mask_list' else _default_lists(name)
        group(f'--{name}', *aliases, dest=name, help=f'{text} {shown}')
    group('--check_data', type=boolean_or('quick'), nargs='?', const=True, default=False,
          metavar='True|quick|False', help='say what is there, what is missing, what cannot be '
                                           'read, how many images show each class; then stop. '
                                           'Every '
          'photograph is decoded; quick: headers alone, of at most 5,000')

    _add_settings(parser, stages)
    _add_files(parser, stages)
    return parser


def _add_settings(parser: argparse.ArgumentParser, stages: Stages) -> None:
    """The settings of all stages, a group for each heading."""
    classes = classes_of(stages)
    for heading in dict.fromkeys((*GROUPS, *(cls.group for cls in classes if cls.group))):
        group = parser.add_argument_group(heading, DESCRIPTIONS.get(heading)).add_argument
        if heading == settings.Run.group:
            group('--gpus', metavar='N|all',
                  help='share the work among so many GPUs of this machine, a process each (ours; '
                  'else the first GPU, or the CPU)')
        if heading == settings.SEGMENTATION:
            group('--seg_recipe', choices=settings.RECIPES, default=settings.RECIPES[0],
                  help='which settings the flags below '
                  "start from; deeplab wants Caffe's weights; for torchvision's add --seg_input "
                  "torchvision --seg_stride 3x3 "
                  '--seg_ceil_mode False')
        for cls in classes:
            if cls.group == heading:
                settings.add_flags(cls, group)


def _add_files(parser: argparse.ArgumentParser, stages: Stages) -> None:
    """A flag for each file and folder that a stage writes, and for inputs that no stage writes."""
    group = parser.add_argument_group('files').add_argument
    group('--work_dir', default='.',
          help='the folder that holds sess/ and result/: every file below that is not named, the '
          'log and the scores lie in it; {name} in it is the name of the folder --data_root; a '
          'path below may begin with {work_dir} (ours)')
    for flag, (stage, output) in stages.outputs().items():
        help_text = output.help or (f'what {stage.name} writes '
                                    f'({"authors" if output.authors else "ours"}) [{output.path}]')
        asked = {} if output.kept else {'nargs': '?', 'const': USUAL}
        group(f'--{flag}', help=help_text, metavar=output.metavar, **asked)
    for read in further_inputs(stages).values():
        group(f'--{read.flag}', help=read.help, metavar='DIR')


def further_inputs(stages: Stages) -> dict[str, Input]:
    """Return flag -> input, of those inputs whose flag names no output of a stage."""
    written = stages.outputs()
    return {read.flag: read for stage in stages for read in stage.reads if read.flag not in written}


def add_stage_from(group: Callable[..., argparse.Action]) -> None:
    """The flag that names stages of one's own, for scripts too. group: a parser's `add_argument`.
    """
    group('--stage_from', action='append', default=[], metavar='MODULE',
          help='a stage of your own: a module that ends with '
          'its STAGE (docs/extending.md); may be given again')


def add_data_flags(group: Callable[..., argparse.Action]) -> None:
    """The flags that name a data set, for scripts too. group: a parser's `add_argument`."""
    group('--dataset', default='voc12', type=_dataset_or_module,
          metavar='|'.join((*DATASETS, 'MODULE')), help="VOC 2012, MS-COCO 2014, one's own "
                                                        "photographs, or a module with a class "
                                                        "Source (docs/extending.md)")
    group('--data_root', metavar='DIR', help='; '.join(
        f'{name}: {source.root_is}' + ''.join(f', else {other}'
                                              for other in (source.environment, source.usual)
                                              if other)
        for name, source in DATASETS.items()))
    group('--voc12_root', metavar='DIR', help='the same for --dataset voc12 (authors)')


def _dataset_or_module(text: str) -> str:
    if text in DATASETS or '.' in text or importlib.util.find_spec(text) is not None:
        return text
    raise argparse.ArgumentTypeError(f"invalid choice: {text!r}{nearest(text, DATASETS)} (choose "
                                     f"from "
                                     f"{', '.join(map(repr, DATASETS))}, or a module)")


def _default_lists(flag: str) -> str:
    return '[' + ', '.join(f'{name}: {source.lists[flag]}'
                           for name, source in DATASETS.items()) + ']'


class _Help(argparse.RawDescriptionHelpFormatter):
    """Adds each default that the help does not already tell."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, False, argparse.SUPPRESS):
            return action.help
        shown = (' '.join(map(str, action.default)) if isinstance(action.default, list)
                 else action.default)
        return f'{action.help} [{shown}]'.replace('%', '%%')


class _ChooseStages(argparse.Action):
    """--stages: turns on the flags of the stages that it names, and nothing off; `ranged` are the
    names of those that a range took in.
    """

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: list[tuple[Stage, bool]], option_string: str | None = None) -> None:
        for stage, _ in values:
            setattr(namespace, stage.flag.lstrip('-'), True)
        namespace.ranged = {stage.name for stage, ranged in values if ranged} - {
            stage.name for stage, ranged in values if not ranged}


class _PrintCompletion(argparse.Action):
    """--print_completion: what a shell reads to complete this command's flags, and their values
    where they are words, files or folders.
    """

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: str, option_string: str | None = None) -> None:
        try:
            import shtab
        except ImportError as error:
            raise UserError(f'{option_string} takes shtab ({error}): pip install shtab') from error
        for action in parser._actions:
            if action.metavar is not None and 'DIR' in action.metavar:
                action.complete = shtab.DIRECTORY
            elif action.metavar is not None and 'FILE' in action.metavar:
                action.complete = shtab.FILE
            elif action.metavar == 'True|False' and action.nargs != '?':
                action.choices = ('True', 'False')
        parser.prog = 'run_sample.py'  # what the shell completes; by itself it may be python, too
        print(shtab.complete(parser, values))
        parser.exit()


def _stages_type(stages: Stages) -> Callable[[str], list[tuple[Stage, bool]]]:
    """An argparse type: 'train_cam..make_sem_seg,report' -> the stages, ends included, and whether
    each is of a range.
    """
    names = [stage.name for stage in stages]

    def position(name: str) -> int:
        name = name.replace('-', '_')
        if name not in names:
            raise argparse.ArgumentTypeError(f'no stage is called {name!r}{nearest(name, names)}')
        return names.index(name)

    def parse(text: str) -> list[Stage]:
        chosen = []
        for part in text.split(','):
            first, dots, last = (word.strip() for word in part.partition('..'))
            low, high = position(first), position(last if dots else first)
            if low > high:
                raise argparse.ArgumentTypeError(f'{part}: {last} comes before {first}')
            chosen += [(stage, bool(dots)) for stage in stages[low:high + 1]]
        return chosen
    return parse


def parser_of(stages: Stages, names: Collection[str], **options: Any) -> Parser:
    """A parser of these flags alone, for another command: the same defaults, checks and help."""
    parser = Parser(formatter_class=_Help, **options)
    group = parser.add_argument_group('as in run_sample.py')
    for action in build_parser(stages)._actions:
        if action.dest in names:
            group._add_action(action)
    return parser


def from_python(stages: Stages, names: Collection[str], **flags: Any) -> argparse.Namespace:
    """Parse the flags `names` from values, as the command line would.

    Every other flag of run_sample.py is at its default; None is a flag that is not given. Raises
    UserError for what the command line refuses.
    """
    def refuse(message: str) -> NoReturn:
        raise UserError(message)

    parser = parser_of(stages, names)
    parser.error = refuse
    words = []
    for name, value in flags.items():
        if value is not None:
            words += [f'--{name}', *map(str, value if isinstance(value, list | tuple) else [value])]
    return build_parser(stages).parse_args([], parser.parse_args(words))


def stage_list(stages: Stages) -> str:
    """A line each: flag and title."""
    return '\n'.join(f'  {stage.flag}'.ljust(31) + stage.title for stage in stages)


class Given(NamedTuple):
    """What the command line gives; kept beside the flags, as `given`.

    words: its own; named: the flags that these, or a preset, name; changed: the flags whose values
    are not the defaults, as words.
    """

    words: list[str]
    named: frozenset[str]
    changed: list[str]


def given(parser: Parser, words: Sequence[str], with_preset: Sequence[str],
          args: argparse.Namespace) -> Given:
    """Return what a command line gives.

    words, with_preset: its words, without and with those of its preset; args: these parsed, and
    not resolved yet.
    """
    changed = []
    for action in parser._actions:
        value = getattr(args, action.dest, action.default)
        if value != action.default and not action.dest.endswith('_pass') \
                and action.dest not in TOLD_ELSEWHERE:
            values = value if isinstance(value, list) else [value]
            changed += [f'--{action.dest}', *('='.join(each) if isinstance(each, tuple) else
                                              str(each) for each in values)]
    return Given(list(words), parser.named(with_preset), changed)


def without_stages(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, but those that choose stages."""
    kept: list[str] = []
    skip: Callable[[str], bool] | None = None  # whether the next word belongs to what is left out
    for word in words:
        if skip is not None and skip(word):
            skip = None
            continue
        flag = word.partition('=')[0].replace('-', '_')
        skip = None
        if flag == '__stages':
            skip = (lambda word: True) if '=' not in word else None
        elif flag.startswith('__') and flag.endswith('_pass'):
            skip = (lambda word: not word.startswith('-')) if '=' not in word else None
        else:
            kept.append(word)
    return kept


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob('*.txt'))


def with_preset(words: Sequence[str]) -> list[str]:
    """Return a command line with the words of its --preset before its own.

    A flag that is given twice is then the command line's. Raises UserError for a preset that is not
    there, or that names another.
    """
    words = [part for word in (underscored(each, READ_FIRST) for each in words)
             for part in (('--preset', ALIASES[word]) if word in ALIASES else (word,))]
    places = [number for number, word in enumerate(words) if re.fullmatch('--preset(=.*)?', word)]
    if not places:
        return words
    where = places[-1]
    name = words[where].partition('=')[2] or (words[where + 1] if where + 1 < len(words) else '')
    path = PRESETS / f'{name}.txt' if name in preset_names() else Path(name)
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f'--preset {name}: neither one of '
                        f'{", ".join(preset_names())}{nearest(name, preset_names())} nor a file '
                        'that can be read') from error
    chosen = len(without_stages(words)) < len(words)
    given = [word for line in lines for word in shlex.split(line, comments=True)
             # stages of the command line take the place of the preset's
             if not (chosen and line.startswith('--stages'))]
    if any(word.startswith('--preset') for word in given):
        raise UserError(f'{path}: a preset cannot name another one')
    return given + words


def with_stages_of(stages: Stages, words: Sequence[str]) -> Stages:
    """Return the stages with those of each module that --stage_from names among the words.

    Each is the module's STAGE, and stands where it says. Raises UserError for a module that cannot
    be imported, or has none.
    """
    modules = [following for word, following in zip(words, words[1:], strict=False)
               if word == '--stage_from']
    modules += [word.partition('=')[2] for word in words if word.startswith('--stage_from=')]
    more = []
    for module in modules:
        try:
            more.append(importlib.import_module(module).STAGE)
        except (ImportError, ValueError, AttributeError) as error:
            raise UserError(f'--stage_from {module}: no module with a STAGE ({error})') from error
    return stages.with_more(more)


def resolve(stages: Stages, args: argparse.Namespace) -> None:
    """Fill in every flag that is not given: a setting, a file, a list."""
    resolve_settings(stages, args)
    resolve_files(stages, args)
    resolve_lists(args)
    for read in further_inputs(stages).values():
        if getattr(args, read.flag) is None and read.fallback is not None:
            setattr(args, read.flag, getattr(args, read.fallback))


def resolve_settings(stages: Stages, args: argparse.Namespace) -> None:
    """Fill in the settings: a stage's own value, else both stages', else the published one.

    Raises UserError for settings that contradict each other.
    """
    settings.resolve(classes_of(stages), args)
    for cls in stages.settings():
        cls.of(args).check()


def resolve_files(stages: Stages, args: argparse.Namespace) -> None:
    """What is not named has its usual name, in --work_dir."""
    if '{name}' in args.work_dir:
        root = find_root(args.data_root or args.voc12_root, args.dataset)
        args.work_dir = args.work_dir.replace('{name}', Path(root).resolve().name)
    for name, default in (stages.files() | {'scores_file': SCORES}).items():
        if getattr(args, name) is None:
            setattr(args, name, str(Path(args.work_dir) / default))
    for name, (_, output) in stages.outputs().items():
        path = getattr(args, name)
        if path == USUAL or (path is None and output.implied(args)):
            path = str(Path(args.work_dir) / output.path)
        setattr(args, name, path if path is None
                else str(path).replace('{work_dir}', args.work_dir))


def resolve_lists(args: argparse.Namespace) -> None:
    """What is not named is the data set's own."""
    defaults = source_class(args.dataset).lists
    for name in LISTS:
        if getattr(args, name) is None:
            setattr(args, name, args.infer_list if name == 'mask_list' else defaults[name])
    for name in LISTS:
        if getattr(args, name) in LISTS:
            setattr(args, name, getattr(args, getattr(args, name)))


def source_class(name: str) -> type[Source]:
    """Return a data set of the project, or the class Source of a module.

    Raises UserError for a module without it.
    """
    if name in DATASETS:
        return DATASETS[name]
    try:
        return importlib.import_module(name).Source
    except (ImportError, AttributeError) as error:
        raise UserError(f'--dataset {name}: no module with a class Source ({error})') from error


def find_root(given: str | None, dataset: str = 'voc12') -> str:
    """Return --data_root, else what the environment names, else where the data set usually lies."""
    source = source_class(dataset)
    usual = source.usual if source.usual and Path(source.usual).is_dir() else None
    root = given or os.environ.get(source.environment or '') or usual
    if root is None:
        flag = f'--data_root FOLDER{" (or --voc12_root)" if dataset == "voc12" else ""}'
        raise UserError(f'where is {dataset}? Give {flag}: {source.root_is}'
                        + (f'; or set {source.environment}' if source.environment else ''))
    return root


def open_source(args: argparse.Namespace) -> Source:
    """The source of --dataset, at its root, which args.data_root tells from then on.

    Raises UserError where there is none, and for roots that contradict each other.
    """
    if args.voc12_root is not None and (args.dataset != 'voc12'
                                        or args.data_root not in (None, args.voc12_root)):
        raise UserError(f'--voc12_root {args.voc12_root} beside --dataset {args.dataset}'
                        f'{f" --data_root {args.data_root}" if args.data_root else ""}: give '
                        f'--data_root alone')
    args.data_root = find_root(args.data_root or args.voc12_root, args.dataset)
    return source_class(args.dataset)(args.data_root)
