"""Links that leave docs/ work on GitHub as they are; the site's lead to the repository (`repo_url` in mkdocs.yml).

Pictures from outside are copied into the site. What is linked to must be there, or the strict build fails.
"""

import logging
import re
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File

LINK = re.compile(r"(!?)\[([^\]]*)\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
log = logging.getLogger("mkdocs.hooks.links")


def on_page_markdown(markdown, *, page, config, files):
    docs = Path(config.docs_dir).resolve()

    def rewritten(link: re.Match) -> str:
        picture, text, target, anchor = link.groups(default="")
        path = (docs / page.file.src_path).parent.joinpath(target).resolve()
        if path.is_relative_to(docs):
            return link[0]
        inside = PurePosixPath(path.relative_to(docs.parent))
        if not path.exists():
            log.warning("%s links to %s, which is not in the repository", page.file.src_path, inside)
        if picture:
            files.append(File.generated(config, f"outside/{inside}", abs_src_path=str(path)))
            return f"![{text}]({'../' * page.file.src_path.count('/')}outside/{inside})"
        return f"[{text}]({config.repo_url}/{'tree' if path.is_dir() else 'blob'}/main/{inside}{anchor})"

    return LINK.sub(rewritten, markdown)
