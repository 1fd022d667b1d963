#!/usr/bin/env bash
# Every stage on MS-COCO 2014 with the published settings (script/presets/coco.txt), the report, and the scores beside the
# published ones. It can be stopped and run again: the same command goes on.
# usage: bash script/generate_pseudo_mask_coco.sh ROOT [--gpus N|all] [flags of run_sample.py]
#   ROOT  the folder that holds COCO's images and what `python -m coco14.prepare --coco_root ROOT` made
. "$(dirname "$0")/help.sh"
exec bash "$(dirname "$0")/run.sh" coco "$@"
