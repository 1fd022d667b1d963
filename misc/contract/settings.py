"""Every setting: its type, its default, what it does, and where the default comes from.

"authors": the published script; "ours". A class holds the settings of one stage, or of one part of
the program. The flags of the command line are made from its fields, a stage gets the objects that
it names, and the record of a folder or of weights is such an object (`Settings.record`), so that no
setting can be left out of one.
"""
import argparse
import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

from misc import imutils, torchutils
from misc.pyutils import UserError

AUTO = 'auto'  # a threshold: chosen from the activations alone; else what the machine allows
WALK_FROM = ('amn', 'cam', 'mean', 'geometric')  # what may walk, and beside what background:
WALK_BACKGROUNDS = ('none', 'inverse', 'amn', 'constant')  # misc/method/walking.py has the formulas


# What argparse makes of a word
def boolean(text: str) -> bool:
    """True or False in the usual spellings."""
    if text.lower() in ('true', 't', 'yes', 'y', 'on', '1'):
        return True
    if text.lower() in ('false', 'f', 'no', 'n', 'off', '0'):
        return False
    raise argparse.ArgumentTypeError(f'{text!r} is neither True nor False')


def boolean_or(word: str) -> Callable[[str], bool | str]:
    """True, False, or `word`."""
    def parse(text: str) -> bool | str:
        return word if text.lower() == word else boolean(text)
    return parse


def number(kind: type, low: float, high: float = float('inf'),
           above: bool = False) -> Callable[[str], float]:
    """An int or float from `low` (above=True: greater than it) to `high`."""
    def parse(text: str) -> float:
        value = kind(text)
        if not (low < value if above
                else low <= value) or not value <= high or value == float('inf'):
            raise argparse.ArgumentTypeError(f'{text} is not {"above" if above else "at least"} '
                                             f'{low}'
                                             + (f' and at most {high}' if high < float('inf')
                                                else ''))
        return value
    parse.__name__ = kind.__name__  # argparse's "invalid int value"
    return parse


def or_auto(kind: Callable[[str], float]) -> Callable[[str], float | str]:
    """What `kind` takes, or the word auto, which a stage resolves when it runs."""
    def parse(text: str) -> float | str:
        return AUTO if text == AUTO else kind(text)
    parse.__name__ = kind.__name__
    return parse


def named_folder(text: str) -> tuple[str, str]:
    """Parse 'NAME=DIR' into (NAME, DIR)."""
    name, _, folder = text.partition('=')
    if not re.fullmatch(r'[A-Za-z0-9][\w.+-]*', name, re.ASCII) or not folder:
        raise argparse.ArgumentTypeError(f'{text!r} is not NAME=DIR, with a NAME of letters, '
                                         f'digits and ._+-')
    return name, folder


Some = TypeVar('Some', bound='Settings')
COUNT, WHOLE = number(int, 1), number(int, 0)
POSITIVE, RATE, FRACTION = number(float, 0, above=True), number(float, 0), number(float, 0, 1)
THRESHOLD = or_auto(FRACTION)


# What a field says of itself
HOW = {'flag', 'nargs', 'choices', 'metavar', 'recorded', 'module', 'fallback', 'recipes'}


def setting(default: Any, help: str, kind: Any = None, **more: Any) -> Any:
    """Declare a setting that has a flag: the class's prefix and the field's name, or `flag`.

    kind: makes the value from a word (`boolean` for a switch).
    more: flag; nargs, choices, metavar as argparse has them; and

    - recorded: 'always', or 'changed': only where it is not at its default, for a setting that came
      when folders without it were about, or 'never': no content depends on it.
    - module: whether its value names a module whose code is part of the record.
    - fallback: the flag, of two stages at once, that is taken where this one is not given.
    - recipes: the defaults of `RECIPES`, in their order; `default` is then None.
    """
    unknown = more.keys() - HOW
    if unknown:
        raise TypeError(f'setting: {", ".join(sorted(unknown))}')
    how = {'default_factory': default} if callable(default) else {'default': default}
    return dataclasses.field(**how, metadata={'help': help, 'kind': kind, **more})


def same_as(cls: type['Settings'], name: str, **more: Any) -> Any:
    """Declare a setting whose flag another class has: the same value for a second stage."""
    other = next(field for field in dataclasses.fields(cls) if field.name == name)
    return dataclasses.field(default=other.default,
                             metadata={**other.metadata, 'flag': flag_of(cls, other),
                                       'own_flag': False, **more})


def flag_of(cls: type['Settings'], field: dataclasses.Field) -> str:
    """The flag of a field, without its dashes."""
    return field.metadata.get('flag', cls.prefix + field.name)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one part of the program.

    group: the heading of its flags in the help.
    prefix: the beginning of its flags.
    """

    group: ClassVar[str] = ''
    prefix: ClassVar[str] = ''
    shown: ClassVar[str] = ''

    @classmethod
    def of(cls: type[Some], args: argparse.Namespace) -> Some:
        """From the parsed command line, whose flags may have been resolved since."""
        def frozen(value: Any) -> Any:
            return tuple(value) if isinstance(value, list) else value
        return cls(**{field.name: frozen(getattr(args, flag_of(cls, field)))
                      for field in dataclasses.fields(cls)})

    def record(self) -> dict[str, Any]:
        """Return the settings that a file depends on, by the names of the fields."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)
                if field.metadata.get('recorded', 'always') != 'never'
                and not (field.metadata.get('recorded') == 'changed'
                         and getattr(self, field.name) == field.default)}

    def modules(self) -> list[str]:
        """The modules whose code makes the content: network, backbone, loss."""
        return [getattr(self, field.name) for field in dataclasses.fields(self)
                if field.metadata.get('module') and getattr(self, field.name) is not None]

    @classmethod
    def flags(cls) -> dict[str, str]:
        """Field -> flag."""
        return {field.name: flag_of(cls, field) for field in dataclasses.fields(cls)}

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""


def workers(given: int | None) -> int:
    """Return the processes of work without a network: --num_workers where given, else all cores.

    Processes of torchrun on a machine share its cores.
    """
    # torchrun tells how many share them
    cores = torchutils.cores() // int(os.environ.get('LOCAL_WORLD_SIZE', '1'))
    return max(1, cores) if given is None else given


def readers(given: int | None) -> int:
    """Return the processes that read ahead of a network: --num_workers, else half the cores."""
    return max(1, workers(given) // 2) if given is None else given


@dataclasses.dataclass(frozen=True)
class Run(Settings):
    """The machine, and how this run goes: what no content depends on, and what stages share."""

    group = 'machine and run'
    device: str = setting('auto', 'auto (the first GPU, else the CPU), cpu, cuda or cuda:N')
    num_workers: int | None = setting(None, 'processes that decode, refine and score, beside each '
                                            'one of torchrun; no result depends on it (ours: all '
                                            'cores, half of them while a network computes; '
                                            'authors: half the cores)', WHOLE)
    precision: str = setting('fp32', 'of the networks; bf16 takes about half the time where the '
                                     'machine has it; fp16 on GPUs only; auto: bf16 where the '
                                     'machine has it, else fp32 (ours; published: fp32)',
                             choices=(AUTO, *torchutils.PRECISIONS))
    deterministic: bool = setting(False, 'on a GPU use only kernels that give the same bits in '
                                         'every run, which are slower; '
                                  'the CPU always does (ours)', boolean)
    crf_beside: bool | str = setting(AUTO, "refine CAM's and AMN's seeds by the CRF while the "
                                           'network makes the activations of further images, on '
                                           'cores that it leaves idle; the same files; auto: with '
                                           'a GPU (ours)', boolean_or(AUTO),
                                     metavar='True|False|auto')
    seed: int = setting(0, 'the same seed gives the same files, for any --num_workers; on a GPU '
                           'with --deterministic '
                            '(ours)', number(int, 0, 2 ** 63 - 1))
    repeat: int = setting(1, 'run the chosen stages this often, with --seed, --seed + 1, ...: what '
                             'they write lies in a folder seed_N each; ends with mean and '
                             'standard deviation of every score (ours)', COUNT)
    accumulate: int = setting(1, 'parts that a training batch is cut into, one after the other: '
                                 'the same gradient in less '
                              'memory; no result depends on it but by rounding (ours)', COUNT)
    inference_batch_size: int = setting(1, 'images of like size that go through CAM and AMN at a '
                                           'time, each with its mirror, '
                                        'when activations are made; may be faster on a GPU; the '
                                        'same result but for rounding '
                                        '(ours)', COUNT)
    save_every: float = setting(30.0, 'minutes between checkpoints of a training; one is written '
                                      'after every epoch too (ours)',
                                POSITIVE)
    fit_to_images: bool = setting(False, 'batches, epochs and learning rates of the trainings from '
                                  'the number of images of --train_list (preset own); what a flag '
                                  'says stays (ours)', boolean)
    tensorboard: str | None = setting(None, 'write losses, learning rate and a few pictures an '
                                            'epoch there, for TensorBoard '
                                      '(needs the package tensorboard; ours)', metavar='DIR')
    resume: bool = setting(True, 'go on with a training whose checkpoint is there; False starts it '
                                 'anew (ours)', boolean)
    on_damaged: str = setting('stop', 'what a training does with a photograph that cannot be '
                                      'decoded: stop, and name all of '
                              'the list; or skip it: another image, drawn from seed, epoch and '
                              'image, takes its place (ours)',
                              choices=('stop', 'skip'))
    overwrite: bool = setting(False, 'make what the chosen stages write anew; without it what is '
                                     'there is kept, and a stage '
                              'goes on (ours)', boolean)
    log_name: str = setting('sample_train_eval', 'the log goes to sess/NAME.log, or to NAME.log '
                                                 'where the name has a folder '
                            '(authors)')
    scores_file: str | None = setting(None, 'each score is added to it as a line of JSON (ours) '
                                            '[result/scores.jsonl]')
    pretrained: str = setting('imagenet', "where the backbones start: torchvision's ImageNet "
                                          "weights, random, or a file with "
                              "torchvision's names (published: imagenet)",
                              metavar='imagenet|none|FILE')
    momentum: float = setting(1e-4, "of CAM's and IRN's SGD; 1e-4 is what the published figures "
                                    "were made with, by a slip of "
                              'the authors: their weight decay lands here', RATE)

    @property
    def workers(self) -> int:
        """Processes of work without a network."""
        return workers(self.num_workers)

    @property
    def readers(self) -> int:
        """Processes that read ahead of a network."""
        return readers(self.num_workers)


@dataclasses.dataclass(frozen=True)
class Training(Settings):
    """The settings of every training."""

    pretrained: str = same_as(Run, 'pretrained')
    seed: int = same_as(Run, 'seed')
    precision: str = same_as(Run, 'precision')


def _network(module: str) -> Any:
    return setting(module, 'module with class Net (authors)', module=True)


def _crop_size(side: int) -> Any:
    return setting(side, 'side of the training crops, pixels (authors)', COUNT)


def _batch_size(images: int) -> Any:
    return setting(images, 'images a step (authors)', COUNT)


def _epochs(number: int, flag: str) -> Any:
    return setting(number, 'passes over the train list (authors)', COUNT, flag=flag)


def _loss() -> Any:
    return setting(None, 'module with a class Objective to learn instead of the published loss '
                         '(ours)', recorded='changed', metavar='MODULE', module=True)


@dataclasses.dataclass(frozen=True)
class CamTraining(Training):
    group, prefix = 'CAM', 'cam_'
    network: str = _network('net.resnet50_cam')
    crop_size: int = _crop_size(512)
    resize_long: tuple[int, int] = setting((320, 640), 'long side of a training image, drawn '
                                                       'evenly, pixels (authors, fixed '
                                           'there)', COUNT, nargs=2, metavar=('LOW', 'HIGH'))
    batch_size: int = _batch_size(16)
    epochs: int = _epochs(5, 'cam_num_epoches')
    learning_rate: float = setting(0.1, 'of the backbone; ten times that for the classifier '
                                        '(authors)', RATE)
    weight_decay: float = setting(1e-4, 'authors', RATE)
    momentum: float = same_as(Run, 'momentum')
    backbone: str | None = setting(None, "module with a class Backbone in the place of CAM's and "
                                         "AMN's ResNet-50, or timm:NAME, a network of timm (ours)",
                                   recorded='changed', flag='backbone',
                                   metavar='MODULE|timm:NAME', module=True)
    loss: str | None = _loss()

    def check(self) -> None:
        low, high = self.resize_long
        if low > high:
            raise UserError(f'--cam_resize_long {low} {high}: LOW is above HIGH')


@dataclasses.dataclass(frozen=True)
class CamActivations(Settings):
    """CAM's activations."""

    group, prefix = 'CAM', 'cam_'
    network: str = same_as(CamTraining, 'network')
    backbone: str | None = same_as(CamTraining, 'backbone')
    scales: tuple[float, ...] = setting((1.0, 0.5, 1.5, 2.0), 'scales whose activations are added '
                                                              'up, for CAM and AMN; fewer '
                                        'is faster and coarser (authors)', POSITIVE, nargs='+')
    dtype: str = setting('float32', "of CAM's and AMN's stored activations; float16 takes half the "
                                    "disk, uint8 (256 steps, "
                         'compressed) about a tenth (ours; published: float32)',
                         choices=('float32', 'float16', 'uint8'))
    precision: str = same_as(Run, 'precision')


@dataclasses.dataclass(frozen=True)
class SharedThresholds(Settings):
    """The authors' flags, which set both stages at once where these have none of their own."""

    group = 'thresholds of both stages'
    cam_eval_thres: float | str | None = setting(
        None, 'threshold of both activation scores, where a stage has none of its own; raise for '
              'smaller objects; auto: chosen '
        'from the activations alone, without masks (ours) (published: CAM 0.15, AMN 0.25)',
        THRESHOLD, metavar='0..1|auto')
    conf_fg_thres: float | str | None = setting(
        None, 'above it a pixel is sure foreground, for both seed stages, where a stage has none '
              'of its own; raise for '
        'cleaner, sparser seeds; auto: from the activations alone (ours) (published: CAM 0.30, AMN '
        '0.45)', THRESHOLD,
        metavar='0..1|auto')
    conf_bg_thres: float | str | None = setting(
        None, 'below it a pixel is sure background, likewise; lower for cleaner, sparser '
              'background (published: CAM 0.05, AMN '
        '0.15)', THRESHOLD, metavar='0..1|auto')


def _threshold(value: float, what: str, flag: str, fallback: str) -> Any:
    return setting(value, f'{what} ({value:.2f}, published)', THRESHOLD, metavar='0..1|auto',
                   flag=flag, fallback=fallback)


@dataclasses.dataclass(frozen=True)
class CamScore(Settings):
    group = 'CAM'
    threshold: float | str = _threshold(0.15, "threshold of CAM's score", 'eval_cam_thres',
                                        'cam_eval_thres')


@dataclasses.dataclass(frozen=True)
class Seeds(Settings):
    """The two thresholds of refined seeds.

    Above the first a pixel of the activation is sure foreground, below the second sure background.
    """

    fg_thres: float | str
    bg_thres: float | str

    def check(self) -> None:
        if AUTO not in (self.bg_thres, self.fg_thres) and self.bg_thres > self.fg_thres:
            flags = self.flags()
            raise UserError(f'{self.shown} seeds: the background threshold {self.bg_thres} is '
                            f'above the foreground threshold '
                            f'{self.fg_thres}; give --{flags["bg_thres"]} and '
                            f'--{flags["fg_thres"]}')


@dataclasses.dataclass(frozen=True)
class CamSeeds(Seeds):
    group, shown = 'refined seeds', 'CAM'
    fg_thres: float | str = _threshold(0.30, "above it a pixel of CAM's seeds is sure foreground",
                                       'cam_conf_fg_thres', 'conf_fg_thres')
    bg_thres: float | str = _threshold(0.05, 'below it sure background', 'cam_conf_bg_thres',
                                       'conf_bg_thres')


@dataclasses.dataclass(frozen=True)
class AmnSeeds(Seeds):
    group, shown = 'refined seeds', 'AMN'
    fg_thres: float | str = _threshold(0.45, "above it a pixel of AMN's seeds is sure foreground",
                                       'amn_conf_fg_thres', 'conf_fg_thres')
    bg_thres: float | str = _threshold(0.15, 'below it sure background', 'amn_conf_bg_thres',
                                       'conf_bg_thres')


@dataclasses.dataclass(frozen=True)
class AmnTraining(Training):
    group, prefix = 'AMN', 'amn_'
    network: str = _network('net.resnet50_amn')
    crop_size: int = _crop_size(512)
    batch_size: int = _batch_size(16)
    epochs: int = _epochs(5, 'amn_num_epoches')
    learning_rate: tuple[float, float] = setting((5e-6, 1e-4), 'of Adam (authors)', RATE, nargs=2,
                                                 metavar=('BACKBONE', 'HEAD'))
    weight_decay: float = setting(1e-4, 'of Adam, added to the gradient (authors)', RATE)
    eps: float = setting(0.4, 'label smoothing of the per-pixel loss; raise for flatter '
                              'activations, 0 for none (authors)',
                         FRACTION, flag='eps')
    label_conditioning: bool = setting(
        True, "multiply AMN's features by the encoded labels; False to see what that does, in "
              "training and in making "
        'activations alike (authors: always)', boolean, nargs=None)
    balanced: bool = setting(True, 'half the loss for background and half for foreground pixels; '
                                   'False: the mean over all of '
                             'them, to see what the balance does (authors: always)', boolean,
                             nargs=None)
    backbone: str | None = same_as(CamTraining, 'backbone')
    loss: str | None = _loss()


@dataclasses.dataclass(frozen=True)
class AmnActivations(Settings):
    """AMN's activations: scales and storage as CAM's."""

    network: str = same_as(AmnTraining, 'network')
    backbone: str | None = same_as(CamTraining, 'backbone')
    label_conditioning: bool = same_as(AmnTraining, 'label_conditioning', recorded='changed')
    scales: tuple[float, ...] = same_as(CamActivations, 'scales')
    dtype: str = same_as(CamActivations, 'dtype')
    precision: str = same_as(Run, 'precision')


@dataclasses.dataclass(frozen=True)
class AmnScore(Settings):
    group = 'AMN'
    threshold: float | str = _threshold(0.25, "threshold of AMN's score", 'eval_amn_cam_thres',
                                        'cam_eval_thres')


@dataclasses.dataclass(frozen=True)
class IrnTraining(Training):
    group, prefix = 'IRN', 'irn_'
    network: str = _network('net.resnet50_irn')
    crop_size: int = setting(512, 'side of the training crops, pixels; pairs of radius 10 need 73 '
                                  '(authors)', number(int, 73))
    batch_size: int = _batch_size(32)
    epochs: int = _epochs(3, 'irn_num_epoches')
    learning_rate: float = setting(0.1, 'of the edge head; ten times that for the displacement '
                                        'head (authors)', RATE)
    weight_decay: float = setting(1e-4, 'authors', RATE)
    momentum: float = same_as(Run, 'momentum')
    loss: str | None = _loss()


@dataclasses.dataclass(frozen=True)
class Walk(Settings):
    """The random walk to IRN's class boundaries."""

    group = 'random walk'
    network: str = same_as(IrnTraining, 'network')
    beta: float = setting(10.0, 'power of the affinities; raise to spread less (authors)', POSITIVE)
    exp_times: int = setting(8, 'the walk has 2^this steps (authors)', number(int, 0, 20))
    power: float = setting(1.3, 'power of the activations before the walk; raise for smaller '
                                'objects (authors, fixed there)',
                           POSITIVE, flag='sem_seg_power')
    canvas: int = setting(512, "side that IRN's images are padded to where they are smaller, "
                               "pixels; 0 for none; near "
                          '--irn_crop_size, where that is small, the boundaries are better '
                          '(authors, fixed there)', WHOLE,
                          flag='sem_seg_canvas')
    foreground: str = setting('amn', "what walks: AMN's activations, CAM's, the mean of both, or "
                                     'their geometric mean (docs/better_masks.md; ours; '
                                     'published: amn)',
                              recorded='changed', flag='sem_seg_from', choices=WALK_FROM)
    background: str = setting('none', 'what walks for the background, of which a score is then '
                                      "the share that it leaves to the class: the inverse of AMN's "
                                      "activations, AMN's own background plane, or a constant; "
                                      'none: scores are divided by the highest one of their image '
                                      '(ours; published: none)',
                              recorded='changed', flag='sem_seg_background',
                              choices=WALK_BACKGROUNDS)
    precision: str = same_as(Run, 'precision')

    @property
    def reads_cam(self) -> bool:
        return self.foreground != 'amn'

    @property
    def is_published(self) -> bool:
        """Whether what walks, and how its score is made, is as published."""
        return (self.foreground, self.background) == ('amn', 'none')


@dataclasses.dataclass(frozen=True)
class PseudoMasks(Settings):
    group = 'random walk'
    bg_thres: float | str = setting(0.25, 'below it a pixel is background; raise for smaller '
                                          'objects (authors); auto: chosen from the walks alone, '
                                          'which are then kept, without masks (ours)',
                                    THRESHOLD, metavar='0..1|auto', flag='sem_seg_bg_thres')
    crf: bool = setting(False, 'refine each mask by a dense CRF with the scores as odds, in the '
                               'workers, from walks that are then kept (ours; published: no)',
                        boolean, recorded='changed', flag='sem_seg_crf')


@dataclasses.dataclass(frozen=True)
class InstanceMasks(Settings):
    group = 'random walk'
    network: str = same_as(IrnTraining, 'network')
    beta: float = same_as(Walk, 'beta')
    exp_times: int = same_as(Walk, 'exp_times')
    bg_thres: float = setting(0.25, 'the same for the instance masks (authors)', FRACTION,
                              flag='ins_seg_bg_thres')
    canvas: int = same_as(Walk, 'canvas')
    precision: str = same_as(Run, 'precision')


@dataclasses.dataclass(frozen=True)
class Analysis(Settings):
    group, prefix = 'threshold analysis', 'analyze_'
    dirs: tuple[tuple[str, str], ...] = setting(
        (), 'further folders of activations to analyse beside --cam_out_dir, --amn_cam_out_dir and '
            '--walked_out_dir, with '
        '--eval_cam_thres as their threshold (ours)', named_folder, nargs='+', metavar='NAME=DIR')


@dataclasses.dataclass(frozen=True)
class Sheet(Settings):
    group, prefix = 'report', 'sheet_'
    images: int = setting(8, 'rows of the contact sheet: images evenly spread over --infer_list '
                             '(ours)', COUNT)


@dataclasses.dataclass(frozen=True)
class Report(Settings):
    group, prefix = 'report', 'report_'
    images: int = setting(60, 'images in its gallery: a third the best, a third the worst, a third '
                              'drawn at random; 0 for all '
                          '(ours)', WHOLE)
    against: str | None = setting(None, 'the --work_dir of another run of the same data, to stand '
                                        'beside this one: scores, IoU of each class, the images '
                                        'that changed most (ours)', metavar='DIR', recorded='never')


# as AMN's authors trained the network (AdvCAM#9); kazuto1011/deeplab-pytorch
RECIPES = ('advcam', 'deeplab')
SEGMENTATION = 'segmentation network'


def _recipe(help: str, advcam: Any, deeplab: Any, kind: Any = None, **more: Any) -> Any:
    def shown(value: Any) -> str:
        return ' '.join(map(str, value)) if isinstance(value, tuple) else str(value)
    return setting(None, f'{help} (advcam: {shown(advcam)}; deeplab: {shown(deeplab)})', kind,
                   recipes=(advcam, deeplab), **more)


@dataclasses.dataclass(frozen=True)
class SegForm(Settings):
    """The form of the segmentation network and of its input."""

    group, prefix = SEGMENTATION, 'seg_'
    network: str = setting('net.resnet101_deeplab',
                           'module with class Net: net.resnet101_deeplab (published), or '
                           'net.resnet50_deeplab for half the time and memory (ours)', module=True)
    input: str = _recipe('pixels: torchvision (RGB, mean, std) or caffe (BGR minus mean), as the '
                         'weights to start from were '
                         'made', 'torchvision', 'caffe', choices=tuple(imutils.INPUTS))
    stride: str = _recipe("a block's stride is in its 3x3 (torchvision's weights) or in its first "
                          "1x1 (Caffe's)", '3x3', '1x1',
                          choices=('3x3', '1x1'))
    ceil_mode: bool = _recipe("the pooling rounds up (Caffe's weights)", False, True, boolean)

    @property
    def stride_first(self) -> bool:
        """Whether a block's stride is in its first 1x1."""
        return self.stride == '1x1'

    def as_trained(self, record: dict[str, Any]) -> 'SegForm':
        """Return the form in the record beside the weights; this one's where it holds none."""
        stride_first = record.get('stride_first', self.stride_first)
        return dataclasses.replace(self, input=record.get('input', self.input),
                                   stride='1x1' if stride_first else '3x3',
                                   ceil_mode=record.get('ceil_mode', self.ceil_mode))

    def record(self) -> dict[str, Any]:
        record = super().record()
        del record['stride']
        return record | {'stride_first': self.stride_first}


@dataclasses.dataclass(frozen=True)
class SegTraining(SegForm):
    """Training the segmentation network."""

    steps: int = _recipe('updates in all', 30_000, 20_000, COUNT)
    loss: str = _recipe('ce, or balanced: half of it from background, half from foreground, which '
                        'users found necessary on '
                        'pseudo-masks', 'balanced', 'ce', choices=('ce', 'balanced'))
    resize: tuple[float, ...] = _recipe('factors by one of which a training image is resized',
                                        (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
                                        (0.5, 0.75, 1.0, 1.25, 1.5), POSITIVE, nargs='+')
    pretrained: str | None = setting(None, "where its backbone starts: as --pretrained unless "
                                           "given; FILE may have "
                                     "kazuto1011/deeplab-pytorch's names (published: imagenet, and "
                                     "COCO's for the recipe "
                                     'deeplab)', metavar='imagenet|none|FILE',
                                     fallback='pretrained')
    crop_size: int = setting(321, 'side of the training crops, pixels (published)', COUNT)
    batch_size: int = setting(10, 'images a step; 10 of 321 pixels through ResNet-101 take 13.7 '
                                  'GiB in fp32, 7.4 with '
                              '--accumulate 2 (published), 3.7 with --accumulate 5, which fits 8 '
                              'GB (measured on the CPU)',
                              COUNT)
    learning_rate: float = setting(2.5e-4, "of the backbone's convolutions; ten times that for the "
                                           "head's weights, twenty "
                                   'times for its biases (published)', RATE)
    weight_decay: float = setting(5e-4, "of all but the head's biases (published)", RATE)
    momentum: float = setting(0.9, 'published', RATE)
    scales: tuple[float, ...] = setting((1.0, 0.75, 0.5), 'scales of a crop that the loss is taken '
                                                          'at, and at their maximum '
                                        '(published)', POSITIVE, nargs='+', flag='seg_train_scales')
    seed: int = same_as(Run, 'seed')
    precision: str = same_as(Run, 'precision')


@dataclasses.dataclass(frozen=True)
class SegMaps(Settings):
    """The segmentation network's label maps."""

    group, prefix = SEGMENTATION, 'seg_'
    scales: tuple[float, ...] = setting((1.0, 0.75, 0.5), 'scales whose maximum makes the label '
                                                          'maps (published); 1 alone is a '
                                        'third faster', POSITIVE, nargs='+')
    flip: bool = setting(False, 'take the mean with the mirror; twice the time (ours)', boolean)
    crf: bool = setting(False, 'refine by CRF too, into --seg_crf_out_dir, where the logits lie '
                               'meanwhile (0.15 MB an image of '
                        'VOC); both are scored (published figures are given with and without)',
                        boolean, recorded='never')
    precision: str = same_as(Run, 'precision')


def own_flags(cls: type[Settings]) -> Iterator[tuple[str, dataclasses.Field]]:
    """Yield (flag, field) of each setting whose flag `cls` has, without those of its base class."""
    inherited = {field.name for base in cls.__mro__[1:] if dataclasses.is_dataclass(base)
                 and base.group
                 for field in dataclasses.fields(base)}
    for field in dataclasses.fields(cls):
        if field.metadata.get('own_flag', True) and field.name not in inherited:
            yield flag_of(cls, field), field


def add_flags(cls: type[Settings], add: Callable[..., argparse.Action]) -> None:
    """The flags that `cls` declares. add: a parser's or group's `add_argument`."""
    for flag, field in own_flags(cls):
        about = field.metadata
        options = {name: about[name] for name in ('nargs', 'choices', 'metavar')
                   if about.get(name) is not None}
        if about['kind'] is boolean:
            options |= {'metavar': 'True|False'} | ({} if 'nargs' in about
                                                    else {'nargs': '?', 'const': True})
        if about['kind'] is not None:
            options['type'] = about['kind']
        default = (field.default if field.default is not dataclasses.MISSING
                   else field.default_factory())
        default = (None if 'fallback' in about else list(default) if isinstance(default, tuple)
                   else default)
        add(f'--{flag}', default=default, help=about['help'], **options)


def resolve(classes: tuple[type[Settings], ...], args: argparse.Namespace) -> None:
    """Fill in, on the parsed command line, what a flag that is not given stands for.

    That is the flag of both stages, the recipe's value, or the default.
    """
    for cls in classes:
        for flag, field in own_flags(cls):
            if getattr(args, flag) is not None:
                continue
            if 'fallback' in field.metadata:
                given = getattr(args, field.metadata['fallback'])
                setattr(args, flag, field.default if given is None else given)
            if 'recipes' in field.metadata:
                value = field.metadata['recipes'][RECIPES.index(args.seg_recipe)]
                setattr(args, flag, list(value) if isinstance(value, tuple) else value)
