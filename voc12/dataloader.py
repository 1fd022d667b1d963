"""Pascal VOC 2012 as a source: its classes, where files lie, labels from the XML, lists.

Nothing outside voc12/ knows the number of classes or the name of a folder.
"""
import dataclasses
import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from misc.contract.sources import Check, Source, as_on_disk, parse_list, same, some, without_ending
from misc.contract.sources import read_list as read_list  # where others look for it
from misc.files.label_maps import PALETTE
from misc.pyutils import UserError

CLASSES = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
           'diningtable', 'dog',
           'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor')
SHIPPED = Path(__file__).resolve().parent.parent  # the lists' names begin with voc12/
FOLDERS = ('JPEGImages', 'Annotations', 'ImageSets/Segmentation')


def _is_root(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in FOLDERS)


class VOC12(Source):
    """The devkit's folder VOCdevkit/VOC2012.

    Raises UserError where `root` is not such a folder.
    """

    name = 'voc12'
    root_is = 'the folder VOC2012 that holds JPEGImages'
    lists = {'train_list': 'voc12/train_aug.txt', 'val_list': 'voc12/val.txt',
             'infer_list': 'voc12/train.txt',
             'eval_set': 'train', 'seg_list': 'voc12/val.txt'}  # as the authors' script has them
    environment, usual = 'VOC12_ROOT', 'VOCdevkit/VOC2012'
    classes = CLASSES
    palette = PALETTE
    upright = False  # masks do not follow EXIF orientation
    # split -> where the evaluation server wants it
    server_layout = {'test': 'results/VOC2012/Segmentation/comp6_test_cls'}

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        self._images: dict[str, str] | None = None
        self._notes: dict[str, None] = {}
        if _is_root(self.root):
            return
        if not self.root.is_dir():
            raise UserError(f'{root}: no such folder; --voc12_root is the folder VOC2012 that '
                            f'holds JPEGImages')
        for below in (self.root / 'VOC2012', self.root / 'VOCdevkit' / 'VOC2012'):
            if _is_root(below):
                raise UserError(f'{root} is too high a level: give --voc12_root {below}')
        for above in (self.root.resolve().parent, self.root.resolve().parent.parent):
            if _is_root(above):
                raise UserError(f'{root} is too low a level: give --voc12_root {above}')
        missing = ', '.join(name for name in FOLDERS if not (self.root / name).is_dir())
        raise UserError(f'{root} is not a VOC 2012 folder: it has no {missing}')

    def image_path(self, image_id: str) -> Path:
        return self.root / 'JPEGImages' / f'{image_id}.jpg'

    def xml_path(self, image_id: str) -> Path:
        return as_on_disk(self.root / 'Annotations' / f'{image_id}.xml')

    def mask_path(self, image_id: str) -> Path:
        """The true label map (object borders 255); may be missing: only scores need it."""
        return as_on_disk(self.root / 'SegmentationClass' / f'{image_id}.png')

    def object_mask_path(self, image_id: str) -> Path:
        """The true instances, numbered from 1 (borders 255); may be missing."""
        return as_on_disk(self.root / 'SegmentationObject' / f'{image_id}.png')

    def names(self, list_or_split: str | os.PathLike) -> list[str]:
        """Return the ids of a list file, or of a split under ImageSets/Segmentation.

        The lists beside this file, voc12/train.txt and others, are found from any folder. Raises
        UserError where there is neither, and where images are missing, with their number.
        """
        path, split = (Path(list_or_split),
                       self.root / 'ImageSets' / 'Segmentation' / f'{list_or_split}.txt')
        shipped = SHIPPED / path
        path = next((file for file in (path, shipped, split) if file.is_file()), None)
        if path is None:
            raise UserError(f'{list_or_split}: neither a list file nor a split (there is no '
                            f'{split})')
        found = parse_list(path, self._id_of)
        missing = [image_id for image_id in found.ids if self._id_of(image_id) is None]
        if missing:
            raise UserError(f'{path}: {len(missing)} of its {len(found.ids)} images are not in '
                            f'{self.root}/JPEGImages: '
                            f'{some(missing)}; give a list that fits, or the name of a split of '
                            f'that folder')
        if found.absent:
            self._notes[found.note(path)] = None
        return found.ids

    def labels(self, image_id: str) -> np.ndarray:
        """Image-level labels, bool (C,), from the XML's object/name; difficult objects count.

        Raises UserError for a missing or unreadable XML and for a name that is not among the
        classes.
        """
        path = self.xml_path(image_id)
        try:
            root = ElementTree.parse(path).getroot()
        except FileNotFoundError as error:
            raise UserError(f'{path}: missing; image-level labels are read from it') from error
        except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
            raise UserError(f'{path}: not readable as XML: {error}') from error
        objects = [element for element in root.iter() if _tag(element) == 'object']
        if not objects and not {'annotation', 'filename',
                                'size'} & {_tag(element) for element in root.iter()}:
            raise UserError(f'{path}: no annotation of VOC (<{root.tag}>, without an object); '
                            f'fetch it again')
        present = np.zeros(self.n_classes, bool)
        for element in objects:
            name = next((child.text or '' for child in element if _tag(child) == 'name'),
                        '').strip()
            if name not in self.classes:
                close = difflib.get_close_matches(name.lower(), self.classes, 1)
                raise UserError(f'{path}: {name!r} is not one of the {self.n_classes} classes'
                                + (f'; is it {close[0]!r}?' if close else '' if name
                                   else ': an object without a <name>'))
            present[self.classes.index(name)] = True
        return present

    def has_image(self, image_id: str) -> bool:
        """Tell whether the photograph is there, whatever the Unicode form of its name."""
        return self._id_of(image_id) is not None

    def check(self, ids: Iterable[str]) -> Check:
        """Return what is there and what is missing; an XML that is not readable is missing."""
        return dataclasses.replace(super().check(ids), notes=list(self._notes))

    def _id_of(self, name: str) -> str | None:
        """The id of the photograph of this name, with or without .jpg, whatever its Unicode form.
        """
        # one look at the folder instead of one at each of thousands of files
        if self._images is None:
            self._images = {same(file): file
                            for file in map(_jpeg, os.listdir(self.root / 'JPEGImages')) if file}
        return self._images.get(same(name)) or self._images.get(same(without_ending(name)))


def _jpeg(name: str) -> str:
    """The id of a photograph's file; nothing for other files."""
    return name.removesuffix('.jpg') if name.endswith('.jpg') and not name.startswith('.') else ''


def _tag(element: ElementTree.Element) -> str:
    """An element's name, without namespace, in lower case."""
    return element.tag.rpartition('}')[2].lower() if isinstance(element.tag, str) else ''
