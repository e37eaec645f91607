"""How a panel looks in Grafana's classic JSON: the shape, and what is the same for all of one kind.

What the dashboards show stands in dashboards.py; nothing here knows a metric.
"""

import re

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECTOR = 'job=~"$job", instance=~"$instance"'
OTHER_SELECTORS = {
    "k6_": 'testid=~"$testid"',  # k6 writes its metrics itself: there is no job and no instance
    "nginx_": 'job=~"tidegate-nginx.*"',  # of nginx itself, and of mtail that reads its log
    "probe_": 'job="tidegate-probe"',
    "ALERTS": 'alertname=~"Tidegate.+"',  # most are about a whole job, and have no instance
}
WIDTH = 24

# One click from a line to the dashboard of its replica, at the same time.
TO_REPLICA = {
    "title": "This replica",
    "url": "/d/tidegate-replica?${datasource:queryparam}&${job:queryparam}"
    "&var-instance=${__field.labels.instance}&${__url_time_range}",
    "targetBlank": False,
}


def selector_of(metric, labels):
    """How the samples of a metric are chosen; not at all where its labels name a job already."""
    if re.search(r"\bjob=", labels):
        return ""
    others = (selector for begin, selector in OTHER_SELECTORS.items() if metric.startswith(begin))
    return next(others, SELECTOR)


def promql(text):
    """`name{}` becomes `name{job=~"$job", instance=~"$instance"}`, `[r]` the interval that fits the panel's width. What is
    no metric of replicas is chosen in other ways; a selector that names a job stays.
    """

    def select(found):
        name, labels = found.groups()
        return f"{name}{{{', '.join(each for each in (selector_of(name, labels), labels) if each)}}}"

    text = re.sub(r"(\w+)\{([^}]*)\}", select, " ".join(text.split()))
    return text.replace("[r]", "[$__rate_interval]").replace("[range]", "[$__range]")


def quantile(q, histogram, by=""):
    """Of a classic histogram: buckets are added up before the quantile is taken, never quantiles."""
    return f"histogram_quantile({q}, sum by ({by + ', ' if by else ''}le) (rate({histogram}[r])))"


def queries(targets, instant=False, **more):
    return [
        {
            "refId": chr(ord("A") + number),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": promql(expr),
            "legendFormat": legend,
            "range": not instant,
            "instant": instant,
            **more,
        }
        for number, (expr, legend) in enumerate(targets)
    ]


def steps(first, *others):
    """Thresholds: the first colour, then (from this value on, this colour)."""
    return {
        "mode": "absolute",
        "steps": [{"color": first, "value": None}, *({"color": c, "value": value} for value, c in others)],
    }


def panel(kind, title, what, targets, width, height, defaults, options):
    return {
        "type": kind,
        "title": title,
        "description": " ".join(what.split()),
        "datasource": DATASOURCE,
        "gridPos": {"h": height, "w": width},
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def stat(title, what, expr, legend, unit="none", limits=None, instant=False, decimals=None, width=4, height=4):
    """One figure and, behind it, how it came."""
    defaults = {"unit": unit, "color": {"mode": "thresholds"}, "thresholds": limits or steps("blue")}
    if decimals is not None:
        defaults["decimals"] = decimals
    options = {
        "colorMode": "value",
        "graphMode": "none" if instant else "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
        "wideLayout": True,
    }
    return panel("stat", title, what, queries([(expr, legend)], instant), width, height, defaults, options)


def lines(title, what, *targets, unit="short", stack=False, limits=None, top=None, width=8, right=None, below_zero=False, links=True):
    """Lines over time; `links`: of a replica, to its dashboard. `limits` are drawn, `right` names the series whose unit is (name, unit) on the other axis, several with | between them."""
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 40 if stack else 10,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
    }
    defaults = {"unit": unit, "color": {"mode": "palette-classic"}, "custom": custom}
    if not below_zero:
        defaults["min"] = 0
    if top is not None:
        defaults["max"] = top
    if limits:
        custom["thresholdsStyle"] = {"mode": "line"}
        defaults["thresholds"] = limits
    if links and any("{{instance}}" in legend for _, legend in targets):
        defaults["links"] = [TO_REPLICA]
    options = {
        "legend": {
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
            "calcs": ["lastNotNull", "max"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    made = panel("timeseries", title, what, queries(targets), width, 8, defaults, options)
    if right:
        name, its_unit = right
        properties = [
            {"id": "unit", "value": its_unit},
            {"id": "custom.axisPlacement", "value": "right"},
        ]
        matcher = {"id": "byRegexp", "options": f"/^({name})$/"} if "|" in name else {"id": "byName", "options": name}
        override = {"matcher": matcher, "properties": properties}
        made["fieldConfig"]["overrides"] = [override]
    return made


def heat(title, what, histogram, unit, width=8):
    """How the observations of a histogram spread, over time."""
    expr = f"sum by (le) (increase({histogram}[r]))"
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "exponent": 0.5, "reverse": False, "steps": 64},
        "filterValues": {"le": 1e-09},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "unit": unit},
    }
    targets = queries([(expr, "{{le}}")], format="heatmap")
    return panel("heatmap", title, what, targets, width, 8, {"unit": unit}, options)


def states(title, what, expr, legend, words, width=8):
    """Which of a few states each series is in, over time. `words`: value -> (word, colour)."""
    mapping = {
        str(value): {"text": word, "color": colour, "index": number}
        for number, (value, (word, colour)) in enumerate(words.items())
    }
    defaults = {
        "unit": "none",
        "color": {"mode": "thresholds"},
        "thresholds": steps("text"),
        "mappings": [{"type": "value", "options": mapping}],
        "custom": {"fillOpacity": 80, "lineWidth": 0, "spanNulls": False},
    }
    options = {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "mergeValues": True,
        "rowHeight": 0.85,
        "showValue": "auto",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel("state-timeline", title, what, queries([(expr, legend)]), width, 8, defaults, options)


def table(title, what, expr, columns, width=8):
    """The labels of a query's result, as they are now."""
    defaults = {"unit": "none", "color": {"mode": "thresholds"}, "thresholds": steps("text"), "custom": {"align": "auto"}}
    options = {"showHeader": True, "cellHeight": "sm"}
    made = panel("table", title, what, queries([(expr, "")], instant=True, format="table"), width, 8, defaults, options)
    made["transformations"] = [
        {
            "id": "organize",
            "options": {
                "excludeByName": {"Time": True},
                "indexByName": {name: number for number, name in enumerate(columns)},
                "renameByName": columns,
            },
        }
    ]
    return made


def variable(name, label, what, query, single=False):
    """One that Prometheus fills; all values at once, unless `single`."""
    chosen = {} if single else {"selected": True, "text": ["All"], "value": ["$__all"]}
    return {
        "name": name,
        "type": "query",
        "label": label,
        "description": what,
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "regex": "",
        "refresh": 2,
        "sort": 1,
        "multi": not single,
        "includeAll": not single,
        **({} if single else {"allValue": ".+"}),
        "current": chosen,
        "hide": 0,
        "options": [],
        "skipUrlSync": False,
    }


def laid_out(rows):
    """Rows of panels, each below the one before; within a row from left to right, and on when it is full."""
    y, number, placed = 0, 0, []
    for title, panels in rows:
        number += 1
        position = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        row = {"type": "row", "title": title, "collapsed": False, "gridPos": position, "panels": []}
        placed.append({"id": number, **row})
        y += 1
        x = height = 0
        for each in panels:
            number += 1
            at = each["gridPos"]
            if x + at["w"] > WIDTH:
                x, y, height = 0, y + height, 0
            each["gridPos"] = {**at, "x": x, "y": y}
            placed.append({"id": number, **each})
            x, height = x + at["w"], max(height, at["h"])
        y += height
    return placed


def dashboard(uid, title, what, rows, one_replica=False, of_k6=False):
    datasource = {
        "name": "datasource",
        "type": "datasource",
        "label": "Data source",
        "description": "The Prometheus that scrapes the fleet.",
        "query": "prometheus",
        "regex": "",
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "current": {},
        "hide": 0,
        "options": [],
        "skipUrlSync": False,
    }
    job = variable("job", "Job", "Prometheus job of the fleet.", "label_values(tidegate_build_info, job)")
    replica = 'label_values(tidegate_build_info{job=~"$job"}, instance)'
    instance = variable("instance", "Instance", "A replica, as Prometheus scrapes it.", replica, single=one_replica)
    run = variable("testid", "Run of k6", "The tag of a run, see loadtest/README.md.", "label_values(k6_vus, testid)")
    to_others = {
        "type": "dashboards",
        "title": "Tidegate",
        "tags": ["tidegate"],
        "asDropdown": False,
        "icon": "external link",
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }
    restarts = {
        "name": "Restarts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "orange",
        "expr": promql("changes(process_start_time_seconds{}[$__interval]) > 0"),
        "step": "15s",
        "titleFormat": "{{instance}} has begun anew",
        "useValueForTime": False,
    }
    of_grafana = {
        "name": "Annotations & Alerts",
        "builtIn": 1,
        "type": "dashboard",
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
    }
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "description": " ".join(what.split()),
        "tags": ["tidegate"],
        "schemaVersion": 41,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "preload": False,
        "timezone": "browser",
        "weekStart": "",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "links": [to_others],
        "annotations": {"list": [of_grafana, restarts]},
        "templating": {"list": [datasource, job, instance, *([run] if of_k6 else [])]},
        "panels": laid_out(rows),
    }
