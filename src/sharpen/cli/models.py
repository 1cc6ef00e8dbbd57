"""`sharpen models`: what can be trained by name, and fetching it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen models` is told."""
    actions = parser.add_subparsers(dest="what", required=True, title="actions", metavar="list|pull")
    actions.add_parser("list", help="the models with a name of their own, and which are here already")
    pull = actions.add_parser("pull", help="fetch a model, check it, and keep it in the cache")
    pull.add_argument("name", metavar="NAME", help="a name of the list")


def models(options: Namespace) -> int:
    """List the models, or fetch one."""
    if options.what == "list":
        print(_list())
    else:
        from sharpen.models import pull

        print(pull.pull(options.name, print))
    return 0


def _list() -> str:
    from sharpen.models import registry

    lines = []
    for model in registry.listing():
        size = f"{model.parameters / 1e6:.0f} M parameters"
        where = f"here: {model.path}" if model.fetched else f"a download of {model.download_bytes / 1e6:.0f} MB"
        lines.append(f"{model.alias}  {size}  {model.licence}  {where}")
    return "\n".join([*lines, "", "Folders and hub ids (org/name[@revision]) can be named wherever these can."])
