"""The README's table and diagram of the stages, made from what these say of themselves.

python -m misc.command.pages README.md
puts them between the marks `<!-- stages -->` and `<!-- /stages -->`.
"""
import sys
from collections.abc import Sequence
from pathlib import Path

from misc import ending
from misc.contract.stages import Input, Stage, Stages
from misc.parsing import Parser
from misc.pyutils import UserError
from step.pipeline import STAGES

BEGIN, END = '<!-- stages -->', '<!-- /stages -->'


def table(stages: Stages) -> str:
    """A row for each stage."""
    files = {flag: output.path for flag, (_, output) in stages.outputs().items()}
    rows = ['| stage | what it does | goes over | reads | writes |', '|---|---|---|---|---|']
    for stage in stages:
        reads = ', '.join(_read(each, files) for each in stage.reads)
        writes = ', '.join(f'`{output.path}`' + ('' if output.kept else ' where asked for')
                           for output in stage.writes)
        scores = 'a line of `result/scores.jsonl`' if stage.rows else ''
        lists = ', '.join(f'`--{name}`' for name in stage.lists)
        rows.append(f'| `{stage.name}` | {stage.title} | {lists} | {reads} | '
                    f'{", ".join(filter(None, (writes, scores)))} |')
    return '\n'.join(rows)


def _read(read: Input, files: dict[str, str]) -> str:
    flag = read.fallback or read.flag
    return f'`{files.get(flag, flag)}`' + ('' if read.always else ' where asked for'
                                           if read.needed else ' if there')


def diagram(stages: Stages) -> str:
    """Draw the way from stage to stage, scores left out, for a viewer of Mermaid (GitHub's).

    Shown is what a stage needs in every run.
    """
    lines = ['```mermaid', 'flowchart LR']
    shown = [stage for stage in stages if not _is_score(stage)]
    makers = {output.flag: stage for stage in shown for output in stage.writes}
    for stage in shown:
        for each in stage.reads:
            maker = makers.get(each.fallback or each.flag)
            if each.always and maker is not None:
                lines.append(f'  {maker.name} --> {stage.name}')
    return '\n'.join([*lines, '```'])


def _is_score(stage: Stage) -> bool:
    return bool(stage.rows) and not stage.writes


def section(stages: Stages) -> str:
    """What stands between the marks, these included."""
    return f'{BEGIN}\n{diagram(stages)}\n\n{table(stages)}\n{END}'


def main(words: list[str] | None = None) -> int:
    parser = Parser(prog='python -m misc.command.pages', description=__doc__)
    parser.add_argument('pages', nargs='+', type=Path, metavar='PAGE', help='a file with the marks')
    args = parser.parse_args(words)
    return ending.run(lambda: renew(args.pages))


def renew(pages: Sequence[Path]) -> None:
    """Write each page anew, with the stages between its marks. Raises UserError where it has none.
    """
    for path in pages:
        text = path.read_text(encoding='utf-8')
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not (begin and end):
            raise UserError(f'{path}: no {BEGIN} ... {END}')
        path.write_text(before + section(STAGES) + after, encoding='utf-8')


if __name__ == '__main__':
    sys.exit(main())
