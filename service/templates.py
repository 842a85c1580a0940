"""Pages from Jinja templates, which lie beside the module that fills them."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def rendered(template: Path, **values: object) -> str:
    """The template in that file, filled in; a name that it uses and `values` lacks is an error."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        # Captions come from the web: in a page they are escaped, or one could put a script into it.
        autoescape=".html" in template.suffixes,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)
