"""How deep training goes, as `--tune` says it."""

from geoml_cli.errors import UsageMistake


def depth_of(tune: str) -> int | None:
    """Blocks of the encoders that `tune` trains: None for `all`, 0 for `head`, N for `last:N`."""
    name, colon, number = tune.partition(":")
    if tune in ("all", "head"):
        return None if tune == "all" else 0
    if name == "last" and colon and number.isascii() and number.isdigit() and int(number) > 0:
        return int(number)
    raise UsageMistake(f"--tune {tune}: is all, head, or last:N, as last:2")
