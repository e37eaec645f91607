"""The table of docs/clients.md, and the remedies below it."""

import re
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs/clients.md"
BEGIN, END = "<!-- written by `make clients` -->", "<!-- end of what `make clients` writes -->"
LANGUAGES = {".mjs": "javascript", ".py": "python", ".go": "go", ".rs": "rust", ".java": "java"}


def of(wanted, results, asked):
    sent = {name: sent for name, (sent, _) in results.items()}
    heads = [f"lost {name} (of {sent[name]})" for name in results]
    rows = [
        [
            "library",
            "version",
            *heads,
            "resumes by itself",
            "204",
            "400",
            "empty events",
            "remedy",
            "lost, repeated with it",
        ]
    ]
    for library in wanted:
        plain = verdicts(library, "plain", results)
        cured = verdicts(library, "remedy", results)
        rows.append(
            [
                library.name,
                library.version(),
                *(str(plain[name]["lost"]) if plain else "" for name in results),
                resumes(plain) if plain else "",
                *(both(library, status, asked) for status in (204, 400)),
                empty(plain, cured),
                library.cure,
                told(cured) if library.remedy else "–",
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def verdicts(library, form, results):
    key = f"{library.name} ({form})"
    return {name: verdict[key] for name, (_, verdict) in results.items() if key in verdict}


def resumes(plain):
    lost = [verdict["lost"] for verdict in plain.values()]
    return "yes" if not any(lost) else "no" if all(lost) else "not always"


def both(library, status, asked):
    """What it does about this status, without and with the remedy."""
    said = [asked.get(f"{library.name} ({form})", {}).get(status) for form in ("plain", "remedy")]
    return " / ".join(dict.fromkeys(filter(None, said)))


def empty(*forms):
    counts = [sum(verdict["empty"] for verdict in form.values()) for form in forms if form]
    return " / ".join(map(str, dict.fromkeys(counts)))


def told(cured):
    return ", ".join(str(sum(verdict[what] for verdict in cured.values())) for what in ("lost", "repeated"))


def faults(wanted, results, asked):
    """What a library did that must not be, with its remedy, or without one if it needs none."""
    for library in wanted:
        if library.name == "curl":  # its remedy is another program
            continue
        form = "remedy" if library.remedy else "plain"
        for name, verdict in verdicts(library, form, results).items():
            wrong = {what: count for what, count in verdict.items() if count}
            if wrong:
                yield f"{library.name} ({form}), scenario {name}: {wrong}"
        for status, what in asked.get(f"{library.name} ({form})", {}).items():
            if what == "loops":
                yield f"{library.name} ({form}) comes back after {status}"


def remedies(wanted):
    for library in wanted:
        if library.source:
            source = HERE / library.source
            text = re.search(
                r"^[^\n]*remedy\n(.*?)\n[^\n]*end of remedy$", source.read_text(), re.DOTALL | re.MULTILINE
            )[1]
            text = textwrap.dedent(text.expandtabs(4)).strip("\n")
            yield f"{library.name}, {library.cure}:\n\n```{LANGUAGES[source.suffix]}\n{text}\n```"


def write(table, wanted):
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    written = "\n\n".join([BEGIN, table, *remedies(wanted), END])
    PAGE.write_text(before + written + after)
