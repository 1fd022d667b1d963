"""The README's diagram and docs/stages.md's table of the stages, made from what these say.

python -m misc.command.pages puts them between marks, `<!-- stages -->` and `<!-- /stages -->`.
"""
import sys
from pathlib import Path

from misc import ending
from misc.contract.stages import Input, Stage, Stages
from misc.parsing import Parser
from misc.pyutils import UserError
from step.pipeline import STAGES

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / 'README.md', ROOT / 'docs' / 'stages.md')


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


PARTS = {'diagram': diagram, 'stages': table}  # between the marks of that name


def renewed(text: str, stages: Stages) -> str:
    """Return a page's text with what stands between its marks made anew.

    Raises UserError for a page without marks, and for one that opens and does not close.
    """
    there = {name: make for name, make in PARTS.items() if f'<!-- {name} -->' in text}
    if not there:
        raise UserError(f'no mark {" or ".join(f"<!-- {name} -->" for name in PARTS)}')
    for name, make in there.items():
        begin, end = f'<!-- {name} -->', f'<!-- /{name} -->'
        before, _, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not closed:
            raise UserError(f'no {end} after {begin}')
        text = f'{before}{begin}\n{make(stages)}\n{end}{after}'
    return text


def main(words: list[str] | None = None) -> int:
    Parser(prog='python -m misc.command.pages', description=__doc__).parse_args(words)
    return ending.run(renew)


def renew() -> None:
    """Write each of the pages anew, with the stages between its marks."""
    for path in PAGES:
        path.write_text(renewed(path.read_text(encoding='utf-8'), STAGES), encoding='utf-8')


if __name__ == '__main__':
    sys.exit(main())
