"""Do the installed packages fit together? One line for each that does not; run by
script/make_env.sh after installing.

A wheel is built against others: numba against numpy, torchvision against torch. Where pip was given
another index, or pins of its own, both are there and fail when they are imported: better here than
after an hour of training.
"""
import argparse
import importlib
import sys
from importlib import metadata

NEEDED = {'numpy': 'numpy', 'torch': 'torch', 'numba': 'numba', 'cv2': 'opencv-python-headless',
          'PIL.Image': 'pillow',
          'matplotlib.figure': 'matplotlib', 'tqdm': 'tqdm', 'pycocotools.mask': 'pycocotools',
          'jinja2': 'jinja2',
          'filelock': 'filelock'}
BUILT_AGAINST = {'torch': 'numpy', 'numba': 'numpy', 'cv2': 'numpy', 'matplotlib.figure': 'numpy',
                 'pycocotools.mask': 'numpy', 'torchvision': 'torch'}


def release(package: str) -> str:
    """`package` with its version, as pip has it."""
    try:
        return f'{package} {metadata.version(package)}'
    except metadata.PackageNotFoundError:
        return f'{package} (not installed)'


def fault(module: str, package: str) -> str | None:
    """What `module` says when it is imported, in one line with the packages at odds; None where it
    imports.
    """
    try:
        importlib.import_module(module)
        if module == 'torch':
            # a torch built for another numpy imports, and fails here
            sys.modules['torch'].zeros(1).numpy()
        return None
    except Exception as error:  # whatever a foreign package's import raises is the finding
        other = (f' does not fit {release(BUILT_AGAINST[module])}' if module in BUILT_AGAINST
                 else ' does not import')
        said = ' '.join(str(error).split())
        return f'{release(package)}{other} ({type(error).__name__}: {said[:200]})'


def main(words: list[str] | None = None) -> int:
    """Print what does not fit; 1 where a command would fail for it."""
    argparse.ArgumentParser(description=__doc__).parse_args([] if words is None else words)
    faults = [said for said in map(fault, NEEDED, NEEDED.values()) if said]
    for said in faults:
        print(f'error: {said}; rm -r .venv and run script/make_env.sh again with wheels of one '
              f'index', file=sys.stderr)
    if not faults and (said := fault('torchvision', 'torchvision')):
        print(f'note: {said}: --pretrained imagenet will not run, give --pretrained resnet50.pth; '
              f'all else runs without it. '
              'docs/install.md has a pair that fits', file=sys.stderr)
    return bool(faults)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
