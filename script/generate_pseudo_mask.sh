#!/usr/bin/env bash
# Every stage up to the pseudo-masks with the published settings (script/presets/published.txt), the analysis and the report,
# ending with the scores beside the published ones. It can be stopped and run again: the same command goes on.
# usage: bash script/generate_pseudo_mask.sh [ROOT] [--gpus N|all] [--from_released] [flags of run_sample.py]
#   ROOT             the folder VOC2012 (else VOC12_ROOT, else ./VOCdevkit/VOC2012)
#   --from_released  no training: starts from the authors' files (script/presets/released.txt)
. "$(dirname "$0")/help.sh"
exec bash "$(dirname "$0")/run.sh" published "$@"
