#!/usr/bin/env bash
# From a fresh machine to pseudo-masks in minutes, on drawn images: makes the environment, draws the sample, pre-trains a
# backbone on it, runs every stage up to the pseudo-masks and prints the scores. Leaves result/quickstart/sheet.png and the
# page result/quickstart/result/report/index.html.
# usage: bash script/quickstart.sh [--seed N] [further flags of run_sample.py]. It can be stopped and run again. Another seed
# draws other scenes, starts from another backbone, and lies in result/quickstart_seed_N.
. "$(dirname "$0")/help.sh"
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
seed=0 before=
for word in "$@"; do
  [ "$before" != --seed ] || seed=$word
  case $word in
    --seed=*) seed=${word#*=} ;;
    --repeat*) echo "error: --repeat: not in this script, whose last command would not find the files" >&2; exit 2 ;;
  esac
  before=$word
done
out=result/quickstart
[ "$seed" = 0 ] || out+=_seed_$seed
data=$out/sample
bash "$checkout/script/make_env.sh"
python=$checkout/.venv/bin/python
since=$SECONDS

export PYTHONPATH=$checkout${PYTHONPATH:+:$PYTHONPATH}
"$python" -m voc12.sample "$data" --size 160 --seed "$seed"
[ -f "$out/backbone.pth" ] || "$python" "$checkout/script/pretrain_backbone.py" --out "$out/backbone.pth" \
  --seed "$seed"
"$python" "$checkout/run_sample.py" --preset quickstart --voc12_root "$data" --pretrained "$out/backbone.pth" --work_dir "$out" \
  "$@"
"$python" "$checkout/script/contact_sheet.py" --voc12_root "$data" --list train --work_dir "$out" --out "$out/sheet.png"
echo "Pictures: $out/sheet.png. The report, for a browser: $PWD/$out/result/report/index.html"
echo "The same with a folder of your own photographs: $python $checkout/run_sample.py --preset own --data_root FOLDER"
echo "Computing took $(((SECONDS - since) / 60)) min $(((SECONDS - since) % 60)) s."
