# For the scripts beside it, which source it without words of its own: names the checkout ($checkout), from where the modules come,
# and the interpreter ($python: PYTHON, else the checkout's .venv, else python3), makes --flag=value two words of theirs, and
# refuses --repeat, whose files the commands after it would not find. No script changes the folder: paths are the caller's.
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH=$checkout${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-$([ -x "$checkout/.venv/bin/python" ] && echo "$checkout/.venv/bin/python" || echo python3)}
words=()
for word in "$@"; do
  case $word in
    --repeat|--repeat=*)
      echo "error: --repeat: not in this script, whose commands read each other's files; give it to run_sample.py" >&2; exit 2 ;;
    --[a-z]*=*) words+=("${word%%=*}" "${word#*=}") ;;
    *) words+=("$word") ;;
  esac
done
set -- ${words[@]+"${words[@]}"}
