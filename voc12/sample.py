"""Draw a small data set in VOC's layout: `python -m voc12.sample ROOT`, misc/data/drawn."""
import sys

from misc.data.drawn import voc12

if __name__ == '__main__':
    sys.exit(voc12.main())
sys.modules[__name__] = voc12  # `from voc12 import sample` is that module
