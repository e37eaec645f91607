"""Does every link between the Markdown files below a folder lead somewhere? Says those that do not, and fails then.

    links.py FOLDER

Of a link to a heading, the heading is looked for as well. Links to elsewhere are not followed.
"""

import re
import sys
from pathlib import Path

folder = Path(sys.argv[1]).resolve()
HIDDEN = {"target", "node_modules"}


def pages():
    for path in folder.rglob("*.md"):
        inner = path.relative_to(folder).parts
        if not any(part in HIDDEN or part.startswith(".") for part in inner):
            yield path


def prose(page):
    """Without blocks of code: brackets mean something else there."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Those that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


faults, links = [], 0
for page in pages():
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        links += 1
        path, _, title = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists():
            faults.append(f"{page.relative_to(folder)}: no {link}")
        elif title and target.suffix == ".md" and title not in anchors(target):
            faults.append(f"{page.relative_to(folder)}: no heading {link}")
if not links:
    faults.append(f"no link at all below {folder}")
for fault in faults:
    print(f"links: {fault}", file=sys.stderr)
sys.exit(1 if faults else 0)
