"""The rules of Grafana's dashboard-linter (https://github.com/grafana/dashboard-linter), under its names, for dashboards
over Prometheus. What it excepts, and why, stands in dashboards/.lint, which the linter itself reads as well.

Stricter than the linter in two points: panels of every kind are judged, and a counter is one with a selector, too.
"""

import re
import subprocess
import tempfile
from pathlib import Path

# Those that are in use, of the linter's list.
UNITS = {"none", "short", "percentunit", "s", "bytes", "Bps", "cps"}
# Names that are looked up at the data source, `[range]` left aside.
METRIC = r"\b(?:tidegate|process|k6|nginx|probe)_\w+|\bup\b|\bALERTS\b"


def exceptions(path):
    """Of the file of exceptions: rule -> (reason, entries); an entry names a dashboard, a panel, or both."""
    found, rule, entry = {}, None, None
    for line in path.read_text().splitlines():
        words = re.match(r"^( *)(- )?(\w[\w-]*):(?: (.*))?$", line)
        if line.lstrip().startswith("#") or line == "exclusions:" or not line:
            continue
        if not words:
            raise ValueError(f"{path.name}: {line!r} cannot be read")
        depth, begins, key, value = len(words[1]), words[2], words[3], words[4]
        if depth == 2 and value is None:
            rule = found.setdefault(key, {"reason": None, "entries": []})
        elif depth == 4 and key == "reason":
            rule["reason"] = value
        elif key in ("dashboard", "panel") and (begins or entry is not None):
            if begins:
                entry = {}
                rule["entries"].append(entry)
            entry[key] = value
        elif key != "entries":
            raise ValueError(f"{path.name}: {line!r} cannot be read")
    return found


def selectors(expr):
    """(metric, its labels) of each selector. No label here has a brace in its value."""
    return re.findall(rf"({METRIC})(?:\{{([^}}]*)\}})?", re.sub(r"by \([^)]*\)", "", expr))


def of_variables(board):
    variables = {each["name"]: each for each in board["templating"]["list"]}
    sources = [each for each in variables.values() if each["type"] == "datasource"]
    good = [("datasource", "Data source"), ("prometheus_datasource", "Prometheus data source")]
    if [(each["name"], each["label"]) for each in sources] not in ([one] for one in good):
        yield "template-datasource-rule", None, "one data source, under the name and label that go together"
    for name in ("job", "instance"):
        its, rule = variables.get(name), f"template-{name}-rule"
        if its is None:
            yield rule, None, f"there is no ${name}"
            continue
        if its["type"] != "query" or its["datasource"]["uid"] not in ("$datasource", "${datasource}"):
            yield rule, None, f"${name} is a query of $datasource"
        if its["label"] != name.title():
            yield rule, None, f"${name} is labelled {name.title()}, not {its['label']}"
        if not its["multi"] or its.get("allValue") != ".+":
            yield rule, None, f"${name} takes several, and all as .+"
    for its in (each for each in variables.values() if each["type"] == "query"):
        if not re.fullmatch(r"(label_names|label_values|metrics|query_result)\(.+\)", its["query"]["query"]):
            yield "template-label-promql-rule", None, f"${its['name']}: {its['query']['query']}"
        if its["refresh"] != 2:
            yield "template-on-time-change-reload-rule", None, f"${its['name']} is not filled anew"


def of_panel(panel):
    if panel["datasource"]["uid"] not in ("$datasource", "${datasource}"):
        yield "panel-datasource-rule", "another data source than the chosen one"
    if not panel["title"] or not panel["description"]:
        yield "panel-title-description-rule", "no title, or no description"
    overrides = [one["value"] for each in panel["fieldConfig"]["overrides"] for one in each["properties"] if one["id"] == "unit"]
    for unit in [panel["fieldConfig"]["defaults"].get("unit"), *overrides]:
        if unit not in UNITS:
            yield "panel-units-rule", f"no unit, or one that Grafana may not know: {unit}"
    if not panel["targets"]:
        yield "panel-no-targets-rule", "no query"
    for target in panel["targets"]:
        expr = target["expr"]
        for function, interval in re.findall(r"\b(i?rate)\([^\[\]]*\[([^\]]*)\]", expr):
            if interval != "$__rate_interval":
                yield "target-rate-interval-rule", f"{function} over {interval}: {expr}"
        for metric, labels in selectors(expr):
            for name in ("job", "instance"):
                if f'{name}=~"${name}"' not in labels:
                    yield f"target-{name}-rule", f"{metric} is not of the chosen {name}: {expr}"
            if metric.endswith("_total") and not re.search(rf"\b(i?rate|increase)\({metric}\{{[^}}]*\}}\[", expr):
                yield "target-counter-agg-rule", f"{metric} is a counter: {expr}"


def of_board(board):
    """(rule, panel or None, fault) of everything that the linter would complain of."""
    yield from of_variables(board)
    if board["editable"]:
        yield "uneditable-dashboard", None, "it can be changed in the browser"
    for panel in (each for each in board["panels"] if each["type"] != "row"):
        for rule, fault in of_panel(panel):
            yield rule, panel["title"], fault


def faults(boards, path):
    """What is not excepted; and exceptions without a reason, and those that except nothing."""
    excepted, said, used = exceptions(path), [], set()
    for name, board in boards.items():
        for rule, panel, fault in of_board(board):
            known = excepted.get(rule, {"entries": []})["entries"]
            fits = [
                number
                for number, entry in enumerate(known)
                if entry.get("dashboard", board["title"]) == board["title"] and entry.get("panel", panel) == panel
            ]
            used |= {(rule, number) for number in fits}
            if not fits:
                said.append(f"{name}: {rule}: {panel + ': ' if panel else ''}{fault}")
    for rule, its in excepted.items():
        if not its["reason"]:
            said.append(f"{path.name}: {rule} is excepted without a reason")
        for number, entry in enumerate(its["entries"]):
            if (rule, number) not in used:
                said.append(f"{path.name}: {rule} needs no exception for {entry}")
    return said


def promql_faults(asked):
    """target-promql-rule: are they queries at all? `asked`: where it stands -> what Prometheus would be asked."""
    rules = [f"      - record: q{number}\n        expr: |\n          {expr}\n" for number, expr in enumerate(asked.values())]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rules.yml")
        file.write_text("groups:\n  - name: queries\n    rules:\n" + "".join(rules))
        done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    wrong = [list(asked)[int(number)] for number in re.findall(r'rule \d+, "?q(\d+)"?', done.stderr + done.stdout)]
    if done.returncode and not wrong:
        wrong = [(done.stderr or done.stdout).strip()]
    return [f"target-promql-rule: {where}" for where in wrong] if done.returncode else []
