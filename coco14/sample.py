"""Draw a small data set in COCO's layout: `python -m coco14.sample ROOT`, misc/data/drawn."""
import sys

from misc.data.drawn import coco14

if __name__ == '__main__':
    sys.exit(coco14.main())
sys.modules[__name__] = coco14  # `from coco14 import sample` is that module
