"""The table of docs/clients.md, and the remedies below it."""

import re
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs/clients.md"
REMEDY_LINES_MAX = 15
BEGIN, END = "<!-- written by `make clients` -->", "<!-- end of what `make clients` writes -->"
LANGUAGES = {".mjs": "javascript", ".py": "python", ".go": "go", ".rs": "rust", ".java": "java"}


def of(wanted, results, asked):
    lost = [f"lost {name} (of {sent})" for name, (sent, _) in results.items()]
    heads = ["library", "version", *lost, "resumes by itself", "204", "400", "empty events", "remedy"]
    rows = [heads, ["---"] * len(heads), *(row(library, results, asked) for library in wanted)]
    seen = [verdict for _, verdicts in results.values() for verdict in verdicts.values()]
    repeated = sum(verdict["repeated"] + verdict["out of order"] for verdict in seen)
    lines = (f"| {' | '.join(cells)} |" for cells in rows)
    return "\n".join([*lines, "", f"Repeated or out of order, all programs together: {repeated}."])


def row(library, results, asked):
    forms = [form for form in ("plain", "remedy") if form == "plain" or library.remedy]
    seen = [{name: verdict.get(f"{library.name} ({form})") for name, (_, verdict) in results.items()} for form in forms]
    done = [asked.get(f"{library.name} ({form})", {}) for form in forms]
    return [
        library.name,
        library.version(),
        *(cell(form[name] and form[name]["lost"] for form in seen) for name in results),
        resumes(seen[0].values()),
        *(cell(form.get(status) for form in done) for status in (204, 400)),
        cell(sum(verdict["empty"] for verdict in form.values()) for form in seen if all(form.values())),
        library.cure,
    ]


def cell(values):
    """Without the remedy and with it; once, if it is the same."""
    return " / ".join(dict.fromkeys(str(value) for value in values if value is not None))


def resumes(plain):
    lost = [verdict["lost"] for verdict in plain if verdict]
    return "" if not lost else "yes" if not any(lost) else "no" if all(lost) else "not always"


def faults(wanted, results, asked):
    """What a library did that must not be, with its remedy, or without one if it needs none."""
    for library in wanted:
        if library.name == "curl":  # its remedy is another program
            continue
        form = "remedy" if library.remedy else "plain"
        for name, (_, verdicts) in results.items():
            verdict = verdicts[f"{library.name} ({form})"]
            wrong = {what: count for what, count in verdict.items() if count}
            if wrong:
                yield f"{library.name} ({form}), scenario {name}: {wrong}"
        for status, what in asked.get(f"{library.name} ({form})", {}).items():
            if what not in ("stops", "fails"):
                yield f"{library.name} ({form}) {what} after {status}"


def remedies(wanted):
    for library in wanted:
        if library.source:
            source = HERE / library.source
            text = re.search(
                r"^[^\n]*remedy\n(.*?)\n[^\n]*end of remedy$", source.read_text(), re.DOTALL | re.MULTILINE
            )[1]
            text = textwrap.dedent(text.expandtabs(4)).strip("\n")
            if sum(1 for line in text.splitlines() if line.strip()) > REMEDY_LINES_MAX:
                raise RuntimeError(f"the remedy of {library.name} is longer than {REMEDY_LINES_MAX} lines")
            yield f"**{library.name}**: {library.cure}.\n\n```{LANGUAGES[source.suffix]}\n{text}\n```"


def write(table, wanted):
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    written = "\n\n".join([BEGIN, table, *remedies(wanted), END])
    PAGE.write_text(before + written + after)
