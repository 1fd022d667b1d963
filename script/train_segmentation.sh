#!/usr/bin/env bash
# The segmentation network on the pseudo-masks: makes these where they are missing, trains, predicts val with one scale, with
# several, and with CRF, scores, and prints the scores beside the published ones. It can be stopped and run again.
# usage: bash script/train_segmentation.sh [ROOT] [--gpus N|all] [--from_released] [flags of run_sample.py]
#   --seg_label_dir DIR  train on the label maps there instead (SegmentationClassAug for full supervision); no stage before is run
. "$(dirname "$0")/help.sh"
set -euo pipefail
here=$(dirname "$0")
case " $* " in *' --seg_label_dir'[=\ ]*) ;; *) bash "$here/generate_pseudo_mask.sh" "$@" ;; esac
bash "$here/run.sh" segmentation "$@" --seg_scales 1 --seg_crf False --seg_out_dir '{work_dir}/result/seg_one_scale'
exec bash "$here/run.sh" segmentation "$@"
