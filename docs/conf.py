"""The site: `sphinx-build -W docs build/docs`. Pages that stand elsewhere in the tree are copied to docs/generated."""

import re
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "hgmcore"
author = copyright = "The hgmcore authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "hgmcore"
default_role = "code"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = True
suppress_warnings = ["myst.header"]

# page of the site: the file of the tree that it is
PAGES = {"readme.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md",
         "glossary.md": "hgmcore/report/glossary.md", "bench.md": "bench/README.md"}


def linked(text, page):
    """Markdown of the tree with links to the site's pages; links to other files of the tree are their names."""
    places = {path: name for name, path in PAGES.items()}

    def link(match):
        words, target = match[1], match[2].partition("#")
        if re.match(r"\w+:", match[2]) or not target[0]:
            return match[0]
        path = (Path(PAGES[page]).parent / target[0]).as_posix()
        return f"[{words}]({places[path]}{target[1]}{target[2]})" if path in places else f"`{path}`"
    return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", link, text)


def scheme_pages():
    """name -> Markdown of each scheme's own documentation."""
    from hgmcore import schemes
    for name in schemes.NAMES:
        explanation = schemes.load(name).explanation.strip()
        first, _, rest = explanation.partition("\n")
        fields = re.sub(r"(?m)^([A-Z][\w ]*): ", r"\n**\1.** ", rest)
        yield name, f"# {name}\n\n{first}\n{fields}\n"


def write_pages(app):
    """docs/generated, of the tree as it is; a file that is the same is left as it is, so that nothing is built anew."""
    made = {name: linked((ROOT / path).read_text(), name) for name, path in PAGES.items()}
    found = dict(scheme_pages())
    made |= {f"schemes/{name}.md": text for name, text in found.items()}
    index = ["# The schemes", "", "Each page is what a scheme says of itself.", "", "```{toctree}", *found, "```"]
    made["schemes/index.md"] = "\n".join([*index, ""])
    for name, text in made.items():
        path = DOCS / "generated" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app):
    app.connect("builder-inited", write_pages)
